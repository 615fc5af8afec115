package transform

import (
	"context"
	"slices"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// Layer tells how wide a skill is meant.
type Layer uint8

// The layers of a learner's skill. The skill of a subject is the sum of the
// means of overall and subject; that of a goal adds the goal's own mean.
const (
	LayerOverall Layer = 0
	LayerSubject Layer = 1
	LayerGoal    Layer = 2
)

// String returns overall, subject or goal.
func (l Layer) String() string {
	switch l {
	case LayerOverall:
		return "overall"
	case LayerSubject:
		return "subject"
	case LayerGoal:
		return "goal"
	}
	return "unknown"
}

// Component tells which part of a difficulty is meant. The difficulty of an
// exercise is the sum of the means of its item, its goal and the global
// component.
type Component uint8

// The components of a difficulty.
const (
	ComponentItem   Component = 0
	ComponentGoal   Component = 1
	ComponentGlobal Component = 2
)

// String returns item, goal or global.
func (c Component) String() string {
	switch c {
	case ComponentItem:
		return "item"
	case ComponentGoal:
		return "goal"
	case ComponentGlobal:
		return "global"
	}
	return "unknown"
}

// MaxRecent is how many recent exercises an overall row remembers.
const MaxRecent = 16

// SkillRows are absolute states of learner layers, one row each. A row replaces
// any row of the same learner, layer and key with a lower position. A row with
// 0 answers says that the learner has the layer no longer.
type SkillRows struct {
	Learner   []answer.Token
	School    []string
	Group     []string // groep/klas of the learner's last answer that named one, "" = unknown
	YearGroup []uint8  // likewise, 0 = unknown
	KeyEpoch  []uint32 // epoch of the key that made the token
	Layer     []Layer
	Key       []string // "" for overall, the subject, or the goal
	Subject   []string // the subject itself, or that of the goal; "" = unknown, and for overall

	Mean     []float64 // of this layer alone, logits
	Variance []float64 // of this layer alone
	Answers  []uint32  // that moved this layer
	LastAt   []int64   // newest answered_at, milliseconds since 1970, UTC

	FastMean  []float64 // recent average of the score, fast (rate .4)
	SlowMean  []float64 // the same, slow (rate .15)
	LastScore []float64 // score of the last answer in the order of the log

	Position []answer.Position // last answer that moved this layer
	Recent   [][]uint64        // overall rows: xxhash64 of the ItemKeys last answered, newest last, <= MaxRecent
}

// Len returns the number of rows.
func (r *SkillRows) Len() int { return len(r.Learner) }

// Reset empties the rows and keeps their memory.
func (r *SkillRows) Reset() {
	clear(r.Recent) // the rings belong to someone else
	*r = SkillRows{
		Learner: r.Learner[:0], School: r.School[:0], Group: r.Group[:0], YearGroup: r.YearGroup[:0],
		KeyEpoch: r.KeyEpoch[:0], Layer: r.Layer[:0], Key: r.Key[:0], Subject: r.Subject[:0],
		Mean: r.Mean[:0], Variance: r.Variance[:0], Answers: r.Answers[:0], LastAt: r.LastAt[:0],
		FastMean: r.FastMean[:0], SlowMean: r.SlowMean[:0], LastScore: r.LastScore[:0],
		Position: r.Position[:0], Recent: r.Recent[:0],
	}
}

// Grow makes room for n rows in all.
func (r *SkillRows) Grow(n int) {
	if n <= r.Len() {
		return
	}
	more := n - r.Len()
	*r = SkillRows{
		Learner: slices.Grow(r.Learner, more), School: slices.Grow(r.School, more), Group: slices.Grow(r.Group, more),
		YearGroup: slices.Grow(r.YearGroup, more), KeyEpoch: slices.Grow(r.KeyEpoch, more), Layer: slices.Grow(r.Layer, more),
		Key: slices.Grow(r.Key, more), Subject: slices.Grow(r.Subject, more), Mean: slices.Grow(r.Mean, more),
		Variance: slices.Grow(r.Variance, more), Answers: slices.Grow(r.Answers, more), LastAt: slices.Grow(r.LastAt, more),
		FastMean: slices.Grow(r.FastMean, more), SlowMean: slices.Grow(r.SlowMean, more), LastScore: slices.Grow(r.LastScore, more),
		Position: slices.Grow(r.Position, more), Recent: slices.Grow(r.Recent, more),
	}
}

// Append adds row i of another set of rows. The ring of recent exercises is
// shared, not copied.
func (r *SkillRows) Append(o *SkillRows, i int) { r.AppendRange(o, i, i+1) }

// AppendRange adds rows [first, last) of another set of rows. The rings of
// recent exercises are shared, not copied.
func (r *SkillRows) AppendRange(o *SkillRows, first, last int) {
	r.Learner = append(r.Learner, o.Learner[first:last]...)
	r.School = append(r.School, o.School[first:last]...)
	r.Group = append(r.Group, o.Group[first:last]...)
	r.YearGroup = append(r.YearGroup, o.YearGroup[first:last]...)
	r.KeyEpoch = append(r.KeyEpoch, o.KeyEpoch[first:last]...)
	r.Layer = append(r.Layer, o.Layer[first:last]...)
	r.Key = append(r.Key, o.Key[first:last]...)
	r.Subject = append(r.Subject, o.Subject[first:last]...)
	r.Mean = append(r.Mean, o.Mean[first:last]...)
	r.Variance = append(r.Variance, o.Variance[first:last]...)
	r.Answers = append(r.Answers, o.Answers[first:last]...)
	r.LastAt = append(r.LastAt, o.LastAt[first:last]...)
	r.FastMean = append(r.FastMean, o.FastMean[first:last]...)
	r.SlowMean = append(r.SlowMean, o.SlowMean[first:last]...)
	r.LastScore = append(r.LastScore, o.LastScore[first:last]...)
	r.Position = append(r.Position, o.Position[first:last]...)
	r.Recent = append(r.Recent, o.Recent[first:last]...)
}

// Keep leaves the rows that are wanted, in their order and in the same memory.
// All rows are in their places while it asks.
func (r *SkillRows) Keep(wanted func(i int) bool) {
	kept := make([]uint32, 0, r.Len())
	for i := range r.Len() {
		if wanted(i) {
			kept = append(kept, uint32(i))
		}
	}
	if len(kept) == r.Len() {
		return
	}
	*r = SkillRows{
		Learner: pick(r.Learner, kept), School: pick(r.School, kept), Group: pick(r.Group, kept), YearGroup: pick(r.YearGroup, kept),
		KeyEpoch: pick(r.KeyEpoch, kept), Layer: pick(r.Layer, kept), Key: pick(r.Key, kept), Subject: pick(r.Subject, kept),
		Mean: pick(r.Mean, kept), Variance: pick(r.Variance, kept), Answers: pick(r.Answers, kept), LastAt: pick(r.LastAt, kept),
		FastMean: pick(r.FastMean, kept), SlowMean: pick(r.SlowMean, kept), LastScore: pick(r.LastScore, kept),
		Position: pick(r.Position, kept), Recent: pick(r.Recent, kept),
	}
}

// pick moves the kept elements, whose places ascend, to the front.
func pick[T any](column []T, kept []uint32) []T {
	for to, from := range kept {
		column[to] = column[from]
	}
	clear(column[len(kept):])
	return column[:len(kept)]
}

// slice returns rows [first, last) in the same memory.
func (r *SkillRows) slice(first, last int) SkillRows {
	return SkillRows{
		Learner: r.Learner[first:last], School: r.School[first:last], Group: r.Group[first:last], YearGroup: r.YearGroup[first:last],
		KeyEpoch: r.KeyEpoch[first:last], Layer: r.Layer[first:last], Key: r.Key[first:last], Subject: r.Subject[first:last],
		Mean: r.Mean[first:last], Variance: r.Variance[first:last], Answers: r.Answers[first:last], LastAt: r.LastAt[first:last],
		FastMean: r.FastMean[first:last], SlowMean: r.SlowMean[first:last], LastScore: r.LastScore[first:last],
		Position: r.Position[first:last], Recent: r.Recent[first:last],
	}
}

// ItemSumRows are absolute sums of one partition, one row per component of a
// difficulty. They only grow in Answers, Information and Position; a row
// replaces any row of the same partition, component and key with a lower
// position. The whole is the sum over partitions. Gradient/Information is the
// difficulty that the answers show by themselves. The rows of a goal and of the
// global component are the sums over their items.
type ItemSumRows struct {
	Component []Component
	Key       []string // answer.ItemKey, the goal, or "" for global
	Goal      []string // of an item, as first delivered; "" = unknown, and for goal and global
	Subject   []string // of an item or goal, as first delivered

	Gradient    []int64 // sum of w·d plus the gradient at d, in units of 2^-32; d is the difficulty that was used
	Information []int64 // sum of w, in units of 2^-32
	Answers     []int64 // first answers of learners that moved the component
	ScoreSum    []int64 // sum of their scores, in units of 2^-32

	Position []answer.Position // last answer in the sums
}

// Len returns the number of rows.
func (r *ItemSumRows) Len() int { return len(r.Component) }

// Reset empties the rows and keeps their memory.
func (r *ItemSumRows) Reset() {
	*r = ItemSumRows{
		Component: r.Component[:0], Key: r.Key[:0], Goal: r.Goal[:0], Subject: r.Subject[:0],
		Gradient: r.Gradient[:0], Information: r.Information[:0], Answers: r.Answers[:0],
		ScoreSum: r.ScoreSum[:0], Position: r.Position[:0],
	}
}

// Append adds row i of another set of rows.
func (r *ItemSumRows) Append(o *ItemSumRows, i int) { r.AppendRange(o, i, i+1) }

// AppendRange adds rows [first, last) of another set of rows.
func (r *ItemSumRows) AppendRange(o *ItemSumRows, first, last int) {
	r.Component = append(r.Component, o.Component[first:last]...)
	r.Key = append(r.Key, o.Key[first:last]...)
	r.Goal = append(r.Goal, o.Goal[first:last]...)
	r.Subject = append(r.Subject, o.Subject[first:last]...)
	r.Gradient = append(r.Gradient, o.Gradient[first:last]...)
	r.Information = append(r.Information, o.Information[first:last]...)
	r.Answers = append(r.Answers, o.Answers[first:last]...)
	r.ScoreSum = append(r.ScoreSum, o.ScoreSum[first:last]...)
	r.Position = append(r.Position, o.Position[first:last]...)
}

// NormRows are the histograms of skill of one partition, absolute and sparse:
// one row per layer, key and year group. A row replaces any row of the same
// partition, layer, key and year group with a lower position; Position is that
// of the partition when the row was made. A row without bins says that its norm
// group has become empty. The whole is the sum over partitions.
type NormRows struct {
	Layer     []Layer
	Key       []string
	YearGroup []uint8
	Bins      [][]uint16 // ascending; see Bin
	Counts    [][]int64  // learners in each bin, > 0
	Position  []answer.Position

	bins   []uint16 // memory of Bins …
	counts []int64  // … and Counts
}

// Len returns the number of rows.
func (r *NormRows) Len() int { return len(r.Layer) }

// Reset empties the rows and keeps their memory, also that of bins and counts.
func (r *NormRows) Reset() {
	clear(r.Bins)
	clear(r.Counts)
	*r = NormRows{
		Layer: r.Layer[:0], Key: r.Key[:0], YearGroup: r.YearGroup[:0],
		Bins: r.Bins[:0], Counts: r.Counts[:0], Position: r.Position[:0],
		bins: r.bins[:0], counts: r.counts[:0],
	}
}

// Append adds row i of another set of rows. Bins and counts are shared, not
// copied.
func (r *NormRows) Append(o *NormRows, i int) { r.AppendRange(o, i, i+1) }

// AppendRange adds rows [first, last) of another set of rows. Bins and counts
// are shared, not copied.
func (r *NormRows) AppendRange(o *NormRows, first, last int) {
	r.Layer = append(r.Layer, o.Layer[first:last]...)
	r.Key = append(r.Key, o.Key[first:last]...)
	r.YearGroup = append(r.YearGroup, o.YearGroup[first:last]...)
	r.Bins = append(r.Bins, o.Bins[first:last]...)
	r.Counts = append(r.Counts, o.Counts[first:last]...)
	r.Position = append(r.Position, o.Position[first:last]...)
}

// SnapshotRows are the components of difficulties that a version of the item
// snapshot changes, with their values in that version.
type SnapshotRows struct {
	Version   uint64 // from 1, without gaps
	Scale     *Scale // that these values begin, or the newest; nil: none
	Component []Component
	Key       []string
	Goal      []string
	Subject   []string

	Mean     []float64 // of this component alone, logits, higher is harder
	Variance []float64 // of this component alone

	Gradient    []int64 // totals over all partitions that are in the values, as in ItemSumRows
	Information []int64
	Answers     []int64
	ScoreSum    []int64
}

// Len returns the number of rows.
func (r *SnapshotRows) Len() int { return len(r.Component) }

// Reset empties the rows and keeps their memory. The version becomes 0, the scale
// nil.
func (r *SnapshotRows) Reset() {
	*r = SnapshotRows{
		Component: r.Component[:0], Key: r.Key[:0], Goal: r.Goal[:0], Subject: r.Subject[:0],
		Mean: r.Mean[:0], Variance: r.Variance[:0], Gradient: r.Gradient[:0],
		Information: r.Information[:0], Answers: r.Answers[:0], ScoreSum: r.ScoreSum[:0],
	}
}

// own copies the texts, which may point into a message.
func (r *SnapshotRows) own() {
	for _, texts := range [][]string{r.Key, r.Goal, r.Subject} {
		for i := range texts {
			texts[i] = strings.Clone(texts[i])
		}
	}
}

// Append adds row i of another set of rows.
func (r *SnapshotRows) Append(o *SnapshotRows, i int) { r.AppendRange(o, i, i+1) }

// AppendRange adds rows [first, last) of another set of rows.
func (r *SnapshotRows) AppendRange(o *SnapshotRows, first, last int) {
	r.Component = append(r.Component, o.Component[first:last]...)
	r.Key = append(r.Key, o.Key[first:last]...)
	r.Goal = append(r.Goal, o.Goal[first:last]...)
	r.Subject = append(r.Subject, o.Subject[first:last]...)
	r.Mean = append(r.Mean, o.Mean[first:last]...)
	r.Variance = append(r.Variance, o.Variance[first:last]...)
	r.Gradient = append(r.Gradient, o.Gradient[first:last]...)
	r.Information = append(r.Information, o.Information[first:last]...)
	r.Answers = append(r.Answers, o.Answers[first:last]...)
	r.ScoreSum = append(r.ScoreSum, o.ScoreSum[first:last]...)
}

// Adoption says that a partition used an item snapshot from a position on, until
// its next adoption. Position is that of the first row of a message.
type Adoption struct {
	Position   answer.Position
	Version    uint64
	Generation int32 // of the consumer group, of whoever adopted
}

// Checkpoint is what a partition has become since its last checkpoint, as
// absolute states: everything up to Position is in it or in an earlier one. Its
// memory stays with the one who made it.
//
// The rows of a learner stand together in Skills and must become visible
// together.
type Checkpoint struct {
	Partition       int
	Generation      int32
	Position        answer.Position // last row of the last message handled
	AnswersOffset   int64           // last message of `answers` handled
	SkillsOffset    int64           // its message in `skills`
	SnapshotVersion uint64          // in use at Position

	Skills    SkillRows
	Sums      ItemSumRows
	Norms     NormRows
	Adoptions []Adoption

	// Durable is called once, by any goroutine, when everything archived before
	// and everything above is in the store, in the order answers and adoptions,
	// sums and norms, skills, progress; or with the reason why it never will be.
	Durable func(error)

	// Urgent says that somebody waits for it.
	Urgent bool

	rings []uint64 // that Skills.Recent point into
}

// keepCheckpointRows is the number of rows of Skills, or of Sums, whose memory is
// kept for the next checkpoint.
const keepCheckpointRows = 1 << 16

// Reset empties the checkpoint and keeps its memory, unless it is so large that
// few checkpoints need it.
func (c *Checkpoint) Reset() {
	c.Skills.Reset()
	c.Sums.Reset()
	c.Norms.Reset()
	kept := Checkpoint{Norms: c.Norms}
	if cap(c.Skills.Learner) <= keepCheckpointRows {
		kept.Skills, kept.rings = c.Skills, c.rings[:0]
	}
	if cap(c.Sums.Component) <= keepCheckpointRows {
		kept.Sums = c.Sums
	}
	*c = kept
}

// Restored is the durable state of a partition. Rows of Skills and Sums may be
// newer than Position when a checkpoint was interrupted; none is older.
type Restored struct {
	Position        answer.Position // 0 when there is none
	RawOffset       int64           // -1 when there is none, as in the next two
	AnswersOffset   int64
	SkillsOffset    int64
	SnapshotVersion uint64 // 0 when there is none

	Skills SkillRows
	Sums   ItemSumRows

	// Adoptions are those after Position, by position, of a checkpoint that was
	// interrupted. They were durable before anything that was computed with them.
	Adoptions []Adoption

	// Departed are the tokens that have left, with the position of the order.
	// None of them is in Skills with a lower position.
	Departed []Departed

	// Vacated are the newest moments of answers that corrections have taken from
	// learners, or to another moment.
	Vacated []Vacated
}

// Vacated says that a learner was seen to answer at a moment.
type Vacated struct {
	Learner    answer.Token
	AnsweredAt int64
}

// Departed is a token that everything has left by a position.
type Departed struct {
	Learner  answer.Token
	Position answer.Position
}

// Archive tells which archive a row lies in.
type Archive uint8

// The archives.
const (
	AnswersArchive     Archive = 0
	TestResultsArchive Archive = 1
)

// Lookup asks for a row of an archive by its primary key.
type Lookup struct {
	School  string
	Learner answer.Token
	Moment  int64 // of an answer answered_at, milliseconds since 1970; of a test result taken_on, days since 1970
	ID      answer.EventID
}

// Persistence is the durable side of this package. The package store implements
// it.
type Persistence interface {
	// Restore returns the durable state of a partition.
	Restore(ctx context.Context, partition int) (Restored, error)
	// Known returns, of the rows that are archived, the earliest position.
	Known(ctx context.Context, which Archive, rows []Lookup) (map[answer.EventID]answer.Position, error)
	// Archive takes the rows of a message over with what they said, except those
	// to skip (repeats that hold nothing new; nil skips none) and those that are
	// marked as replayed. It copies, and blocks when full.
	Archive(ctx context.Context, partition int, c *answer.Columns, skip []bool, said *Evidence) error
	// ArchiveTestResults takes the rows of a message over, as Archive does.
	ArchiveTestResults(ctx context.Context, partition int, c *answer.TestResults, skip []bool) error
	// Checkpoint takes a checkpoint over: it copies the rows and keeps Durable. It
	// blocks when full.
	Checkpoint(ctx context.Context, checkpoint *Checkpoint) error
	// SaveSnapshot makes a version of the item snapshot durable. Saving the same
	// version again, with the same rows, changes nothing.
	SaveSnapshot(ctx context.Context, version uint64, rows *SnapshotRows) error
	// LoadSnapshot returns the newest values of every component in the versions
	// up to atMost (0 = all) and the newest version among them, 0 when none.
	LoadSnapshot(ctx context.Context, atMost uint64) (version uint64, rows SnapshotRows, err error)
	// LoadSums returns the newest durable sums of a number of partitions from a
	// first one on, as Restore does, for the reducer, which needs them of every one.
	LoadSums(ctx context.Context, first, partitions int) ([]ItemSumRows, error)

	amender
	rebuilder
}
