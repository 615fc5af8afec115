// Package filter is the mathematics of skill and difficulty: a Gaussian
// hierarchical filter, its integer side for many partitions at once, a logistic
// head that corrects its predictions, and the refit of the whole scale.
//
// A learner has a skill of three layers (overall, subject, goal), an exercise a
// difficulty of two components (item, goal), and one global component says how
// easy everything is. All are independent Gaussians on the logit scale:
//
//	z = overall + subject + goal - item - goal difficulty + global
//	P(right) = c + (1-c)·σ(a·z/√(1+πa²v/8)),  v = sum of the six variances
//
// An answer gives a gradient e and an information h at z; every Gaussian of
// variance s moves by ±s·e/(1+hv) and shrinks by s²h/(1+hv). A layer that does
// not apply (an answer without a subject, say) is the zero Gaussian: known to be
// zero, it takes no part and never moves. With answers and days a layer drifts: its
// variance grows towards that of the population, and its mean is drawn back, so
// that the population stays as wide as it is.
//
// Learners move at once. The shared components stand still during an epoch, and
// answers leave int64 contributions, which add in any order to the same bits;
// Reduce turns the sums into the components of the next epoch. For an epoch of
// one answer that is the same as moving them at once.
//
// Everything here is a pure function of its arguments: no clock, no random
// numbers, no order of a map, no goroutine. Every product that is added to
// something is rounded first (float64(x*y) + z), so that no compiler may fuse
// the two, and exp, log and the normal distribution are our own: the same
// arguments give the same bits on every machine with IEEE 754 doubles. Nothing
// on the path of an answer allocates.
package filter
