package ingest

import (
	"fmt"
	"slices"

	"github.com/leerstroom/leerstroom/internal/access"
)

// Authorisations say which publishers may deliver for which school: names of
// publishers by school code (BRIN + vestiging). What is not there is refused.
// There is no wildcard: every school gives its own instruction.
type Authorisations map[string][]string

// Validate names the first entry that is wrong.
func (a Authorisations) Validate() error {
	for _, code := range sortedKeys(a) {
		if !access.ValidSchool(code) {
			return fmt.Errorf("authorisations: want BRIN and vestiging such as 12AB00 as key, got %q", code)
		}
		for _, name := range a[code] {
			if !access.ValidName(name) {
				return fmt.Errorf("authorisations: school %s: %q is no name of a publisher", code, name)
			}
		}
	}
	return nil
}

func sortedKeys(a Authorisations) []string {
	keys := make([]string, 0, len(a))
	for k := range a {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// schoolSet holds the schools that authorised one publisher, and the partition of
// each.
type schoolSet map[string]int

// byPublisher turns the authorisations round: a request has one publisher and
// many schools.
func (a Authorisations) byPublisher(partitionOf func(school string) int) map[string]schoolSet {
	out := make(map[string]schoolSet)
	for code, publishers := range a {
		for _, name := range publishers {
			if out[name] == nil {
				out[name] = make(schoolSet)
			}
			out[name][code] = partitionOf(code)
		}
	}
	return out
}
