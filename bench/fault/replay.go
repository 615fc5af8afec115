package fault

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// bits is how ClickHouse shows the bits of a number.
func bits(v float64) string { return strconv.FormatUint(math.Float64bits(v), 10) }

// replay computes what the tables must hold: the log of answers from its
// beginning, without any disturbance, on the versions that the log of skills
// names. It goes on where it was when it is asked again.
type replay struct {
	d         *deployment
	catalog   *transform.Catalog
	decoder   *transform.Decoder
	versions  []*transform.Snapshot // by number
	nextItems int64
	parts     [partitions]replayed
	powerLost bool // logs that are not synced may lack their end; the store has what was used
}

type replayed struct {
	oracle      *oracle
	nextAnswers int64
	nextSkills  int64
	last        int64            // raw offset
	stored      int64            // raw offset that the store has come to
	snapshot    map[int64]uint64 // version by raw offset, of messages that stand
	adopted     []string         // position and version, where it changed
	recorded    [][2]uint64      // the same as the store has it, ascending; read after a loss of power
	tables      map[string]map[string]string
}

func newReplay(d *deployment) *replay {
	parameters := filter.DefaultParameters()
	r := &replay{d: d, catalog: transform.NewCatalog(), decoder: transform.NewDecoder(), versions: []*transform.Snapshot{transform.EmptySnapshot(&parameters)}}
	for i := range r.parts {
		r.parts[i] = replayed{oracle: newOracle(r.catalog), last: -1, snapshot: make(map[int64]uint64)}
	}
	return r
}

// rewind notes a loss of power: offsets may be given anew, and what stood in a log
// that is made again, not synced, may be in the store only.
func (r *replay) rewind() {
	r.powerLost, r.nextItems = true, 0
	for p := range r.parts {
		r.parts[p].nextAnswers, r.parts[p].nextSkills = 0, 0
	}
}

// errAhead says that the store has not come to a message yet.
var errAhead = errors.New("the store has not come there")

// advance reads what the logs have of what the store has come to.
func (r *replay) advance(ctx context.Context) error {
	err := r.read(ctx, r.d.names.Items, 0, &r.nextItems, r.item)
	if err == nil && r.powerLost {
		err = r.fromStore(ctx)
	}
	if err == nil {
		err = r.progress(ctx)
	}
	for p := range r.parts {
		part := &r.parts[p]
		if err == nil {
			err = r.read(ctx, r.d.names.Skills, p, &part.nextSkills, part.adopt)
		}
		if err == nil {
			err = r.read(ctx, r.d.names.Answers, p, &part.nextAnswers, func(m *stream.Message) error { return r.answers(part, m) })
			if errors.Is(err, errAhead) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("replay partition %d: %w", p, err)
		}
		if part.tables, err = part.oracle.tables(); err != nil {
			return fmt.Errorf("replay partition %d: %w", p, err)
		}
	}
	return nil
}

// progress reads how far the store has come.
func (r *replay) progress(ctx context.Context) error {
	rows, err := r.d.rows(ctx, "SELECT partition, raw_offset FROM progress FINAL")
	if err != nil {
		return err
	}
	for p := range r.parts {
		r.parts[p].stored = -1
	}
	for _, row := range rows {
		p, err := strconv.Atoi(row[0])
		if err == nil {
			r.parts[p].stored, err = strconv.ParseInt(row[1], 10, 64)
		}
		if err != nil {
			return fmt.Errorf("read progress: %w", err)
		}
	}
	return nil
}

// fromStore takes the versions and adoptions that the logs lost.
func (r *replay) fromStore(ctx context.Context) error {
	rows, err := r.d.rows(ctx, "SELECT version, toInt8(component), key, reinterpretAsUInt64(mean), reinterpretAsUInt64(variance) FROM item_snapshots FINAL WHERE version >= "+
		strconv.Itoa(len(r.versions))+" ORDER BY version")
	if err != nil {
		return err
	}
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n][0] == rows[0][0] {
			n++
		}
		if err := r.storedVersion(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	for p := range r.parts {
		rows, err := r.d.rows(ctx, "SELECT DISTINCT position, version FROM adoptions WHERE partition = "+strconv.Itoa(p)+" ORDER BY position, version")
		if err != nil {
			return err
		}
		r.parts[p].recorded = nil
		for _, row := range rows {
			var pair [2]uint64
			for i := range pair {
				if pair[i], err = strconv.ParseUint(row[i], 10, 64); err != nil {
					return fmt.Errorf("read adoptions: %w", err)
				}
			}
			r.parts[p].recorded = append(r.parts[p].recorded, pair)
		}
	}
	return nil
}

// storedVersion takes the rows of one version: version, component, key, mean and
// variance.
func (r *replay) storedVersion(rows [][]string) error {
	var changed transform.SnapshotRows
	for _, row := range rows {
		var numbers [4]uint64
		for i, text := range []string{row[0], row[1], row[3], row[4]} {
			var err error
			if numbers[i], err = strconv.ParseUint(text, 10, 64); err != nil {
				return fmt.Errorf("read item snapshot: %w", err)
			}
		}
		changed.Version = numbers[0]
		const nothing = 127 // marks a version that changes nothing
		if numbers[1] == nothing {
			continue
		}
		changed.Component = append(changed.Component, transform.Component(numbers[1]))
		changed.Key = append(changed.Key, row[2])
		changed.Mean = append(changed.Mean, math.Float64frombits(numbers[2]))
		changed.Variance = append(changed.Variance, math.Float64frombits(numbers[3]))
	}
	if changed.Version != uint64(len(r.versions)) {
		return fmt.Errorf("item snapshot %d follows %d", changed.Version, len(r.versions)-1)
	}
	r.versions = append(r.versions, r.versions[len(r.versions)-1].With(r.catalog, &changed))
	return nil
}

// versionOf returns the version that a message was applied with.
func (p *replayed) versionOf(raw int64) (version uint64, known bool) {
	if version, known = p.snapshot[raw]; known || p.recorded == nil {
		return version, known
	}
	for _, pair := range p.recorded {
		if pair[0] <= uint64(answer.At(raw, 0)) {
			version = pair[1]
		}
	}
	return version, true
}

// read calls see for every message from an offset on.
func (r *replay) read(ctx context.Context, topic string, partition int, next *int64, see func(*stream.Message) error) error {
	first, end, err := r.d.client.Offsets(ctx, topic, partition)
	if err != nil {
		return err
	}
	*next = max(*next, first) // a log that is not synced may begin anew after a loss of power
	var batch stream.Batch
	for *next < end {
		if err := r.d.client.Fetch(ctx, topic, partition, *next, time.Second, &batch); err != nil {
			return err
		}
		for i := range batch.Messages {
			if err := see(&batch.Messages[i]); err != nil {
				return fmt.Errorf("offset %d: %w", batch.Messages[i].Offset, err)
			}
			*next = batch.Messages[i].Offset + 1
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// twice tells where a log holds two messages at one offset.
func (d *deployment) twice(ctx context.Context) (problems []string) {
	r := &replay{d: d}
	for _, topic := range []string{d.names.Raw, d.names.Registry, d.names.Answers, d.names.Skills} {
		for p := range partitions {
			next, last := int64(0), int64(-1)
			err := r.read(ctx, topic, p, &next, func(m *stream.Message) error {
				if m.Offset <= last {
					problems = append(problems, fmt.Sprintf("%s/%d: offset %d follows %d (%d bytes)", topic, p, m.Offset, last, len(m.Value)))
				}
				last = m.Offset
				return nil
			})
			if err != nil {
				problems = append(problems, fmt.Sprintf("%s/%d: %v", topic, p, err))
			}
		}
	}
	return problems
}

// item takes a version of the snapshot, unless its number was taken.
func (r *replay) item(m *stream.Message) error {
	version, err := m.Int64(stream.HeaderSnapshot)
	if err != nil || version != int64(len(r.versions)) {
		return err
	}
	if err := m.CheckDigest(); err != nil {
		return err
	}
	var rows transform.SnapshotRows
	if err := r.decoder.Items(m.Value, &rows); err != nil {
		return err
	}
	rows.Version = uint64(version)
	r.versions = append(r.versions, r.versions[version-1].With(r.catalog, &rows))
	return nil
}

// adopt notes the version of a raw offset.
func (p *replayed) adopt(m *stream.Message) error {
	stands, err := transform.Stands(m)
	if err != nil || !stands {
		return err
	}
	raw, err := m.Int64(stream.HeaderRawOffset)
	if err != nil {
		return err
	}
	version, err := m.Int64(stream.HeaderSnapshot)
	if err != nil || raw <= p.last { // read again after a loss of power
		return err
	}
	if _, twice := p.snapshot[raw]; twice {
		return fmt.Errorf("raw offset %d stands twice in skills", raw)
	}
	p.snapshot[raw] = uint64(version)
	return nil
}

// answers applies a message, unless it repeats one.
func (r *replay) answers(p *replayed, m *stream.Message) error {
	raw, err := m.Int64(stream.HeaderRawOffset)
	if err != nil {
		return err
	}
	if raw <= p.last {
		return nil
	}
	if raw > p.stored {
		return errAhead
	}
	if raw != p.last+1 {
		return fmt.Errorf("raw offset %d follows %d", raw, p.last)
	}
	version, known := p.versionOf(raw)
	if !known {
		return fmt.Errorf("raw offset %d has no message in skills", raw)
	}
	if version >= uint64(len(r.versions)) {
		return fmt.Errorf("raw offset %d was applied with version %d of %d", raw, version, len(r.versions)-1)
	}
	if n := len(p.adopted); version > 0 && (n == 0 || !strings.HasSuffix(p.adopted[n-1], fmt.Sprintf(" %d", version))) {
		p.adopted = append(p.adopted, fmt.Sprintf("%d %d", answer.At(raw, 0), version))
	}
	p.last = raw
	return p.follow(m, raw, r.versions[version])
}

// follow gives a message to the oracle.
func (p *replayed) follow(m *stream.Message, raw int64, version *transform.Snapshot) error {
	schema := string(m.Header(stream.HeaderSchema))
	if schema == answer.SchemaRebuild { // under the same model: it changes nothing
		p.oracle.touchGlobal(answer.At(raw, 0))
		return nil
	}
	if err := m.CheckDigest(); err != nil {
		return err
	}
	epoch, err := m.Int64(stream.HeaderKeyEpoch)
	if err != nil {
		return err
	}
	var decoder answer.Decoder
	switch schema {
	case answer.SchemaAnswers:
		var c answer.Columns
		if err := decoder.Answers(m.Value, &c); err != nil {
			return err
		}
		c.RawOffset, c.KeyEpoch = raw, uint32(epoch)
		p.oracle.answers(&c, version)
	case answer.SchemaCommands:
		var c answer.Commands
		if err := decoder.Commands(m.Value, &c); err != nil {
			return err
		}
		c.RawOffset, c.KeyEpoch = raw, uint32(epoch)
		p.oracle.commands(&c, version)
	case answer.SchemaTestResults: // they move nobody
	default:
		return fmt.Errorf("schema %q is unknown", schema)
	}
	return nil
}

// tableQueries give the same texts from the store: what makes a row, then it.
var tableQueries = map[string]string{
	"skills": "SELECT concat(lower(hex(learner)), ' ', toString(toUInt8(layer)), ' ', key), concat(subject, school, `group`, ' ', toString(year_group), ' ', toString(key_epoch), ' ', " +
		"toString(reinterpretAsUInt64(mean)), ' ', toString(reinterpretAsUInt64(variance)), ' ', toString(answers), ' ', toString(toUnixTimestamp64Milli(last_at)), ' ', " +
		"toString(reinterpretAsUInt64(fast_mean)), ' ', toString(reinterpretAsUInt64(slow_mean)), ' ', toString(reinterpretAsUInt64(last_score)), ' ', toString(position), ' ', toString(recent)) " +
		"FROM skills FINAL WHERE partition = ",
	"item_sums": "SELECT concat(toString(toUInt8(component)), ' ', key), concat(goal, subject, ' ', toString(gradient), ' ', toString(information), ' ', toString(answers), ' ', " +
		"toString(score_sum), ' ', toString(position)) FROM item_sums FINAL WHERE partition = ",
	"answers": "SELECT toString(position), concat(lower(hex(id)), ' ', lower(hex(learner)), ' ', toString(key_epoch), ' ', school, ' ', exercise, ' ', " +
		"toString(toUnixTimestamp64Milli(answered_at)), ' ', toString(reinterpretAsUInt64(score)), ' ', toString(revision), ' ', toString(evidence_gradient), ' ', " +
		"toString(evidence_information)) FROM answers FINAL WHERE source_partition = ",
	"norms": "SELECT concat(toString(toUInt8(layer)), ' ', key, ' ', toString(year_group)), concat(toString(bins), ',', toString(counts)) FROM norms FINAL WHERE partition = ",
}

// emptyNorm is a histogram that everybody has left. It may be there or not.
const emptyNorm = "[],[]"

// compare reads a table and returns what differs from the undisturbed one.
func (r *replay) compare(ctx context.Context, table string) (problems []string, err error) {
	for p := range r.parts {
		rows, err := r.d.rows(ctx, tableQueries[table]+strconv.Itoa(p))
		if err != nil {
			return nil, err
		}
		want, found := r.parts[p].tables[table], make(map[string]bool, len(rows))
		for _, row := range rows {
			found[row[0]] = true
			if row[1] == emptyNorm && want[row[0]] == "" {
				continue
			}
			if expected, ok := want[row[0]]; !ok || expected != row[1] {
				problems = append(problems, fmt.Sprintf("%s of partition %d: row %s is %s, undisturbed %s", table, p, row[0], row[1], expected))
			}
		}
		for key := range want {
			if !found[key] && want[key] != emptyNorm {
				problems = append(problems, fmt.Sprintf("%s of partition %d: row %s is missing", table, p, key))
			}
		}
	}
	return problems, nil
}

// compareAdoptions compares the recorded versions with those that the log names.
func (r *replay) compareAdoptions(ctx context.Context) (problems []string, err error) {
	for p := range r.parts {
		rows, err := r.d.rows(ctx, "SELECT DISTINCT concat(toString(position), ' ', toString(version)) FROM adoptions WHERE partition = "+strconv.Itoa(p)+" ORDER BY position, version")
		if err != nil {
			return nil, err
		}
		var got []string
		for _, row := range rows {
			got = append(got, row[0])
		}
		if !slices.Equal(got, r.parts[p].adopted) {
			problems = append(problems, fmt.Sprintf("partition %d: %d adoptions are recorded, the log names %d, or others", p, len(got), len(r.parts[p].adopted)))
		}
	}
	return problems, nil
}
