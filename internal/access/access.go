// Package access knows who calls: API keys with a role and a scope, and the
// problem documents (RFC 9457) that a refused caller gets.
//
// A key is `lsk_` and 256 random bits in base64url. It is shown once, when it is
// created; the file keeps only its SHA-256. A fast hash is right here: there is
// nothing to guess in 256 random bits.
//
// Invariants:
//   - No key, and no hash of one, is in an error or a log line.
//   - The file is replaced atomically, has mode 0600, and changes by several
//     processes do not get lost (a lock file orders them).
//   - A revoked key stops working within recheckInterval in every process.
//   - When the file can't be read, nobody is let in.
package access

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Role says what a caller is.
type Role string

// The roles.
const (
	RolePublisher Role = "publisher" // uitgever: delivers answers and test results under its own name
	RoleEngine    Role = "engine"    // adaptive engine: sees tokens of its own purpose
	RoleAnalyst   Role = "analyst"   // reads statistics
	RoleSchool    Role = "school"    // reads the data of its own schools
)

// Principal is an authenticated caller.
type Principal struct {
	KeyID     string // name of the key, for logs
	Role      Role
	Publisher string   // of a publisher's key
	Engine    string   // of an engine's key
	Schools   []string // sorted; when empty, the key limits no school
}

// Covers tells whether the key's scope includes the school. A scope is one
// condition among others: it replaces no authorisation and no instruction.
func (p *Principal) Covers(school string) bool {
	if len(p.Schools) == 0 {
		return p.Role != RoleSchool
	}
	_, found := slices.BinarySearch(p.Schools, school)
	return found
}

// Key describes a key without what makes it work.
type Key struct {
	ID        string    `json:"id"`
	Role      Role      `json:"role"`
	Publisher string    `json:"publisher,omitempty"`
	Engine    string    `json:"engine,omitempty"`
	Schools   []string  `json:"schools,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// Scope is what a new key may do.
type Scope struct {
	Role      Role
	Publisher string // for role publisher, required
	Engine    string // for role engine, required
	Schools   []string
}

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	schoolForm = regexp.MustCompile(`^[0-9]{2}[A-Z]{2}[0-9]{2}$`)
)

// ValidName tells whether a name of a publisher or engine has the form that
// Leerstroom allows: 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter
// or digit. It never holds a colon or a bar, which separate names elsewhere.
func ValidName(name string) bool { return nameForm.MatchString(name) }

// ValidSchool tells whether a code is BRIN + vestiging, such as 12AB00.
func ValidSchool(code string) bool { return schoolForm.MatchString(code) }

// Validate names the field that is wrong.
func (s *Scope) Validate() error {
	switch s.Role {
	case RolePublisher, RoleEngine, RoleAnalyst, RoleSchool:
	default:
		return errors.New("role: want publisher, engine, analyst or school")
	}
	for _, named := range []struct {
		field, value string
		role         Role
	}{{"publisher", s.Publisher, RolePublisher}, {"engine", s.Engine, RoleEngine}} {
		switch {
		case s.Role != named.role && named.value != "":
			return fmt.Errorf("%s: only for role %s", named.field, named.role)
		case s.Role == named.role && !ValidName(named.value):
			return fmt.Errorf("%s: want 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit", named.field)
		}
	}
	if s.Role == RoleSchool && len(s.Schools) == 0 {
		return errors.New("schools: a key of role school needs at least one")
	}
	for _, code := range s.Schools {
		if !ValidSchool(code) {
			return errors.New("schools: want BRIN and vestiging, such as 12AB00")
		}
	}
	return nil
}
