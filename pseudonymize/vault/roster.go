package vault

import (
	"context"
	"fmt"
)

// Outcome is what a roster line led to.
type Outcome uint8

// The outcomes.
const (
	OutcomeUnchanged Outcome = iota // all of it was known
	OutcomeRenamed                  // the name, group or year group changed, or is new
	OutcomeCreated                  // a new learner
	OutcomeLinked                   // further aliases of a learner, or a provisional one became known
	OutcomeMerged                   // learners that were several became one
	OutcomeConflict                 // the line claims aliases of two learners that rosters know; nothing was done
	OutcomeInvalid                  // an alias is malformed, or of another school or partition than the first; nothing was done
)

// String returns the name of the outcome.
func (o Outcome) String() string {
	return [...]string{"unchanged", "renamed", "created", "linked", "merged", "conflict", "invalid"}[o]
}

// rosterBatch is the number of lines that are decided on together.
const rosterBatch = 256

// RosterLine is what a roster says about one learner: all aliases that the
// school gives, and the name if it gives one.
type RosterLine struct {
	Aliases []Alias
	Name    Name
}

// ImportRoster teaches the registry what a roster says. It returns an outcome
// per line. The rules stand in the package comment. Importing a roster again
// changes nothing.
func (p *Partition) ImportRoster(ctx context.Context, lines []RosterLine) ([]Outcome, error) {
	if err := p.readNames(ctx, lines); err != nil {
		return nil, fmt.Errorf("import roster into partition %d: %w", p.number, err)
	}
	defer func() { p.stored = nil }()
	outcomes := make([]Outcome, len(lines))
	for start := 0; start < len(lines); {
		n := p.independent(lines[start:min(len(lines), start+rosterBatch)])
		if err := p.importBatch(ctx, lines[start:start+n], outcomes[start:start+n]); err != nil {
			return outcomes[:start], fmt.Errorf("import roster into partition %d: %w", p.number, err)
		}
		start += n
	}
	return outcomes, nil
}

// PlanRoster tells what ImportRoster would make of every line by itself, and
// changes nothing.
func (p *Partition) PlanRoster(ctx context.Context, lines []RosterLine) ([]Outcome, error) {
	if err := p.readNames(ctx, lines); err != nil {
		return nil, fmt.Errorf("plan roster in partition %d: %w", p.number, err)
	}
	defer func() { p.stored = nil }()
	outcomes := make([]Outcome, len(lines))
	for i := range lines {
		var err error
		if _, outcomes[i], err = p.plan(&lines[i]); err != nil {
			return nil, fmt.Errorf("plan roster in partition %d: %w", p.number, err)
		}
	}
	return outcomes, nil
}

// readNames brings the stored names of the lines' schools to memory, for as long
// as the import takes.
func (p *Partition) readNames(ctx context.Context, lines []RosterLine) error {
	p.stored = make(map[LearnerID]Name)
	read := make(map[string]bool)
	for i := range lines {
		if len(lines[i].Aliases) == 0 || !lines[i].Name.known() || read[lines[i].Aliases[0].School] {
			continue
		}
		school := lines[i].Aliases[0].School
		read[school] = true
		names, err := p.vault.Names(ctx, p.number, school, "")
		if err != nil {
			return err
		}
		for _, n := range names {
			p.stored[n.Learner] = n.Name
		}
	}
	return nil
}

// independent returns how many of the lines, at least one, share no alias: they
// can be decided on together and fit one message.
func (p *Partition) independent(lines []RosterLine) int {
	seen := make(map[Digest]bool)
	size := 1
	for n, line := range lines {
		size += 2*len(line.Aliases)*maxRecordBytes + maxNameSealed // a merge and a link or creation each
		var own []Digest
		for _, a := range line.Aliases {
			a = Normalise(a)
			d := p.digester.Of(&a)
			if n > 0 && seen[d] {
				return n
			}
			own = append(own, d)
		}
		if n > 0 && size > maxMessageBytes {
			return n
		}
		for _, d := range own {
			seen[d] = true
		}
	}
	return len(lines)
}

// importBatch decides on lines and writes what follows, until nothing more
// follows: others may have written in between.
func (p *Partition) importBatch(ctx context.Context, lines []RosterLine, outcomes []Outcome) error {
	for {
		var records []Record
		for i := range lines {
			more, outcome, err := p.plan(&lines[i])
			if err != nil {
				return err
			}
			if outcome > outcomes[i] || outcome == OutcomeConflict {
				outcomes[i] = outcome
			}
			records = append(records, more...)
		}
		if len(records) == 0 {
			return nil
		}
		if _, err := p.Append(ctx, records); err != nil {
			return err
		}
		for i := range records {
			if records[i].Kind == KindName {
				p.stored[records[i].Learner] = records[i].Name
			}
		}
	}
}

// plan decides what a roster line means for the registry as it is.
func (p *Partition) plan(line *RosterLine) (records []Record, outcome Outcome, err error) {
	aliases, digests, ok := p.rosterAliases(line.Aliases)
	name := line.Name.normalise()
	if !ok || name.Validate() != nil {
		return nil, OutcomeInvalid, nil
	}
	owners, known := p.owners(digests)
	var learner LearnerID
	switch {
	case known > 1:
		return nil, OutcomeConflict, nil
	case len(owners) == 0:
		if records, err = p.planNew(aliases, digests); err != nil {
			return nil, OutcomeInvalid, err
		}
		learner, outcome = records[0].Secret.ID, OutcomeCreated
	default:
		records, outcome = p.planKnown(aliases, digests, owners, known)
		learner = p.state.secrets[owners[0]].ID
	}
	if name.known() && p.stored[learner] != name {
		records = append(records, Record{Kind: KindName, Learner: learner, Name: name})
		outcome = max(outcome, OutcomeRenamed)
	}
	return records, outcome, nil
}

// planKnown merges the learners of a line into the first and links what is new.
func (p *Partition) planKnown(aliases []Alias, digests []Digest, owners []Learner, known int) (records []Record, outcome Outcome) {
	into := p.state.secrets[owners[0]].ID
	for _, from := range owners[1:] {
		records = append(records, Record{Kind: KindMerge, Learner: p.state.secrets[from].ID, Into: into})
	}
	if len(records) > 0 {
		outcome = OutcomeMerged
	}
	for i, a := range aliases {
		if p.state.Lookup(&digests[i]) == 0 {
			records = append(records, Record{Kind: KindLink, Learner: into, Alias: a})
		}
	}
	if known == 0 { // linking a known alias makes its learner known to a roster
		records = append(records, Record{Kind: KindLink, Learner: into, Alias: aliasOf(p.state, aliases, digests, owners[0])})
	}
	if outcome == OutcomeUnchanged && len(records) > 0 {
		outcome = OutcomeLinked
	}
	return records, outcome
}

func (p *Partition) planNew(aliases []Alias, digests []Digest) ([]Record, error) {
	secret, err := p.vault.config.Mint(&digests[0])
	if err != nil {
		return nil, err
	}
	records := []Record{{Kind: KindCreate, Secret: secret, Alias: aliases[0], Rostered: true}}
	for _, a := range aliases[1:] {
		records = append(records, Record{Kind: KindLink, Learner: secret.ID, Alias: a})
	}
	return records, nil
}

// rosterAliases normalises and checks a line and removes repetitions.
func (p *Partition) rosterAliases(line []Alias) (aliases []Alias, digests []Digest, ok bool) {
	seen := make(map[Digest]bool, len(line))
	for _, a := range line {
		a = Normalise(a)
		if Check(&a) != nil || a.School != line[0].School {
			return nil, nil, false
		}
		d := p.digester.Of(&a)
		if !seen[d] {
			seen[d] = true
			aliases, digests = append(aliases, a), append(digests, d)
		}
	}
	return aliases, digests, len(aliases) > 0
}

// owners returns the learners of aliases, the one that a roster knows first, and
// how many of them rosters know.
func (p *Partition) owners(digests []Digest) (owners []Learner, known int) {
	seen := make(map[Learner]bool, len(digests))
	for i := range digests {
		l := p.state.Lookup(&digests[i])
		if l == 0 || seen[l] {
			continue
		}
		seen[l] = true
		owners = append(owners, l)
		if p.state.Rostered(l) {
			known++
			last := len(owners) - 1
			owners[0], owners[last] = owners[last], owners[0]
		}
	}
	return owners, known
}

// aliasOf returns an alias that leads to the learner.
func aliasOf(state *State, aliases []Alias, digests []Digest, l Learner) Alias {
	for i := range digests {
		if state.Lookup(&digests[i]) == l {
			return aliases[i]
		}
	}
	panic("vault: a learner owns none of the aliases that it was found by")
}

// Reassignment says that an alias belongs to the learner that another alias of
// the school leads to: a person's decision on a conflict.
type Reassignment struct{ Alias, Learner Alias }

// Reassign moves aliases in one message, so that twins whose keys were swapped
// are never one learner in between. Answers that came before stay where they
// are. It returns ErrUnknown when an alias of a learner is unknown.
func (p *Partition) Reassign(ctx context.Context, moves []Reassignment) error {
	var records []Record
	for _, m := range moves {
		secret, err := p.Find(m.Learner)
		if err != nil {
			return fmt.Errorf("reassign aliases in partition %d: %w", p.number, err)
		}
		a := Normalise(m.Alias)
		if err := Check(&a); err != nil {
			return fmt.Errorf("reassign aliases in partition %d: %w", p.number, err)
		}
		records = append(records, Record{Kind: KindMove, Alias: a, Learner: secret.ID})
	}
	_, err := p.Append(ctx, records)
	return err
}

// Merge makes two learners one: a person's decision on a conflict. The tokens of
// the first are no longer made.
func (p *Partition) Merge(ctx context.Context, from, into Alias) error {
	gone, err := p.Find(from)
	if err != nil {
		return fmt.Errorf("merge learners in partition %d: %w", p.number, err)
	}
	stays, err := p.Find(into)
	if err != nil {
		return fmt.Errorf("merge learners in partition %d: %w", p.number, err)
	}
	_, err = p.Append(ctx, []Record{{Kind: KindMerge, Learner: gone.ID, Into: stays.ID}})
	return err
}

// Find returns what the tokens of an alias's learner are made of, or ErrUnknown.
func (p *Partition) Find(a Alias) (Secret, error) {
	a = Normalise(a)
	if err := Check(&a); err != nil {
		return Secret{}, err
	}
	digest := p.digester.Of(&a)
	l := p.state.Lookup(&digest)
	if l == 0 {
		return Secret{}, ErrUnknown
	}
	return *p.state.Secret(l), nil
}
