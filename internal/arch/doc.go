// Package arch holds the tests of the structure of the code: which package may
// import which, what may be called where, names, sizes, and what may not stand
// in any file. It has no code of its own.
//
// Each rule is a function from files to findings, and each has a self-test with
// files that break it: a rule that can't fail is worth nothing.
package arch
