package transform

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// DailySkill is a layer of a learner as it was at the end of a day on which it
// moved.
type DailySkill struct {
	Learner   answer.Token
	Layer     Layer
	Key       string // "" for overall, the subject, or the goal
	Subject   string // the subject itself, or that of the goal
	YearGroup uint8  // of the learner at that time, 0 = unknown
	Day       Day    // of the layer's newest answer
	Mean      float64
	Variance  float64
	Answers   uint32
	Position  answer.Position
}

// Freezer makes a frozen norm of the history of learners, one after the other.
// It holds histograms, never a learner. It is not safe for concurrent use.
type Freezer struct {
	parameters filter.Parameters
	occasion   Occasion
	asOf       Day
	groups     map[groupKey]*normOfGroup
	growth     growth
	learners   int64
	replay     Replay
}

type groupKey struct {
	layer     Layer
	key       string
	yearGroup uint8
}

func (a groupKey) compare(b groupKey) int {
	return cmp.Or(cmp.Compare(a.layer, b.layer), strings.Compare(a.key, b.key), cmp.Compare(a.yearGroup, b.yearGroup))
}

type normOfGroup struct {
	subject   string
	histogram Histogram
}

// FreezeFrom returns the first day whose history a norm as of a day needs: that
// of its school year, and a year and a week back for growth.
func FreezeFrom(asOf Day) Day {
	return min(asOf.SchoolYear().First(), asOf-7*growthWeeks)
}

// NewFreezer begins a norm of an occasion, with the skills at the end of a day.
func NewFreezer(parameters filter.Parameters, occasion Occasion, asOf Day) *Freezer {
	return &Freezer{parameters: parameters, occasion: occasion, asOf: asOf, groups: make(map[groupKey]*normOfGroup),
		growth: growth{cells: make(map[growthKey]*growthCounts)}}
}

// Add counts a learner, given everything that is known of one from FreezeFrom on,
// in any order. Days after the norm's are passed over. The rows are sorted in
// place, and not kept.
func (f *Freezer) Add(rows []DailySkill) {
	f.replay.Begin(rows)
	f.growth.follow(&f.replay, f.asOf)
	f.replay.Advance(f.asOf)
	f.count()
}

// count puts a learner into the histograms of what was practised in the school
// year.
func (f *Freezer) count() {
	first := f.occasion.SchoolYear.First()
	yearGroup, known := f.replay.YearGroup(first)
	if !known {
		return
	}
	f.learners++
	standings := f.replay.Standings(&f.parameters, f.asOf)
	for i := range standings {
		s := &standings[i]
		if s.Day < first || s.Key == "" && s.Layer != LayerOverall {
			continue
		}
		key := groupKey{s.Layer, s.Key, yearGroup}
		group := f.groups[key]
		if group == nil {
			key.key = strings.Clone(key.key)
			group = &normOfGroup{subject: strings.Clone(s.Subject)}
			f.groups[key] = group
		}
		group.histogram.AddUncertain(Bin(s.Skill), VarianceClass(s.Spread), 1)
	}
}

// Freeze returns the norm without its number, time and suppressed groups.
func (f *Freezer) Freeze() (*FrozenNorm, error) {
	norm := &FrozenNorm{NormVersion: NormVersion{
		Name: f.occasion.Name(), SchoolYear: f.occasion.SchoolYear, Moment: f.occasion.Moment, AsOf: f.asOf, Learners: f.learners}}
	keys := make([]groupKey, 0, len(f.groups))
	for key := range f.groups {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, groupKey.compare)
	for _, key := range keys {
		group := f.groups[key]
		if group.histogram.Total() < MinGroup {
			continue
		}
		g := NormGroup{Layer: key.layer, Key: key.key, Subject: group.subject, YearGroup: key.yearGroup}
		g.Bins, g.Counts = group.histogram.AppendSparse(nil, nil)
		g.Variances = group.histogram.AppendVariances(nil)
		norm.Groups = append(norm.Groups, g)
	}
	if len(norm.Groups) == 0 {
		return nil, ErrNobody
	}
	norm.Growth = f.growth.cellsShown()
	norm.GroupCount, norm.CellCount = len(norm.Groups), len(norm.Growth)
	var err error
	norm.Digest, err = norm.digest()
	return norm, err
}

// ErrNobody says that no norm group has enough learners.
var ErrNobody = errors.New("no norm group has 10 learners who answered in the school year")

// digest is what two freezes of the same history agree on.
func (n *FrozenNorm) digest() (string, error) {
	h := sha256.New()
	e := json.NewEncoder(h)
	for i := range n.Groups {
		if err := e.Encode(&n.Groups[i]); err != nil {
			return "", fmt.Errorf("digest of norm: %w", err)
		}
	}
	for i := range n.Growth {
		c := &n.Growth[i]
		fmt.Fprintf(h, "%d %q %d %d %d %d %x %x %x\n", c.Layer, c.Key, c.YearGroup, c.Start, c.Weeks, c.Learners, c.Low, c.Median, c.High)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
