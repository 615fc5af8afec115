package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"golang.org/x/sync/errgroup"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// Amend implements transform.Persistence. It goes past the writer: all that the
// partition wrote before is durable. The order makes every instant harmless:
//
//  1. How many rows of every message count no more because they stand twice, then
//     sums in one insert, and norms. Until they are in, the archive is as it was
//     before the message, and tells how to change them; afterwards nobody asks.
//  2. How many rows an erasure takes from every message.
//  3. Rows in their new places; each is what it will be for good.
//  4. Rows that leave their places.
//  5. Tokens under which nothing is left; then skills in one insert: a learner and
//     what takes its place become visible together.
//  6. Progress.
//
// Rows are moved inside ClickHouse, which reads those that have not moved yet, nor
// arrived: a second attempt does what is left. All that is written carries the position of
// the message as its version, so that an attempt that comes late, from a worker
// that has lost the partition, loses against what later messages did.
func (s *Store) Amend(ctx context.Context, a *transform.Amendment) error {
	m := &amending{store: s, a: a}
	for _, step := range []func(context.Context) error{m.sums, m.erased, m.arrive, m.leave, m.skills, m.progress} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("amend partition %d by raw offset %d: %w", a.Partition, a.RawOffset, err)
		}
	}
	return nil
}

// amending is an amendment under way.
type amending struct {
	store *Store
	a     *transform.Amendment
}

func (m *amending) insert(ctx context.Context, blocks ...*block) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, b := range blocks {
		if b.rows() > 0 {
			group.Go(func() error { return m.store.insert(ctx, b) })
		}
	}
	return group.Wait()
}

func (m *amending) sums(ctx context.Context) error {
	a := m.a
	if !a.SumsDone {
		rows, err := m.store.integers(ctx, 1, m.store.fill("SELECT toInt64(count()) AS c0 FROM {db}.item_sums WHERE partition = {partition:UInt16}"+
			" AND component = 'global' AND position >= {order:UInt64} AND position > 0"), parameters{"partition": a.Partition, "order": uint64(a.Order)})
		if err != nil {
			return err
		}
		if len(rows) > 0 && rows[0][0] > 0 {
			return transform.ErrAmended
		}
	}
	database := m.store.config.Database
	sums, norms, adoptions, doubles := newSumsBlock(database), newNormsBlock(database), newAdoptionsBlock(database), newErasedBlock(database)
	sums.append(a.Partition, &a.Sums)
	norms.append(a.Partition, &a.Norms)
	adoptions.append(a.Partition, a.Adoptions)
	if !a.SumsDone { // what an earlier attempt found is durable
		doubles.append(a)
	}
	// What they were computed with is durable before them.
	if err := m.insert(ctx, &adoptions.block, &doubles.block); err != nil {
		return err
	}
	return m.insert(ctx, &sums.block, &norms.block)
}

// countErased: the rows under erased tokens, also those that an earlier attempt
// has erased, by the message that brought them.
const countErased = `INSERT INTO {db}.erased (partition, ordered_at, content, reason, raw_offset, rows, id_sum)
SELECT newest.3, {order:UInt64}, '{table}', 'erased', bitShiftRight(newest.4, 20), count(), sum(reinterpretAsUInt64(substring(id, 1, 8)))
FROM (
	SELECT id, argMax((is_deleted, changed, source_partition, position), version) AS newest FROM {db}.{table}
	WHERE (school, learner) IN (SELECT school, learner FROM mapping WHERE into = toFixedString('', 16)) AND position < {order:UInt64}
	GROUP BY school, learner, {moment}, id
) WHERE newest.1 = 0 OR newest.2 = {order:UInt64}
GROUP BY newest.3, bitShiftRight(newest.4, 20)`

func (m *amending) erased(ctx context.Context) error {
	any := false
	for _, d := range m.a.Departures {
		any = any || d.Into.IsZero()
	}
	if !any {
		return nil
	}
	if err := m.run(ctx, archiveOf(transform.AnswersArchive).fill(countErased)); err != nil {
		return err
	}
	return m.run(ctx, archiveOf(transform.TestResultsArchive).fill(countErased))
}

// Rows under tokens that go elsewhere, and rows that say something else than
// before, are written anew; everything else of them stays.
const (
	moveAnswers = `INSERT INTO {db}.answers (id, learner, key_epoch, publisher, school, ` + "`group`" + `, year_group, exercise, goal, subject, kind, score,
	attempt, response_time_ms, answered_at, revision, source_partition, position, evidence_gradient, evidence_information, corrected, changed)
SELECT a.id, m.into, if(m.key_epoch = 0, a.key_epoch, m.key_epoch), a.publisher, a.school, a.` + "`group`" + `, a.year_group, a.exercise, a.goal, a.subject, a.kind, a.score,
	a.attempt, a.response_time_ms, a.answered_at, a.revision, a.source_partition, a.position,
	if(p.scored = 1, p.gradient, a.evidence_gradient), if(p.scored = 1, p.information, a.evidence_information), a.corrected, {order:UInt64}
FROM (SELECT * FROM {db}.answers FINAL WHERE (school, learner) IN (SELECT school, learner FROM mapping WHERE into != toFixedString('', 16))
	AND position < {order:UInt64} AND changed < {order:UInt64}) AS a
INNER JOIN mapping AS m ON m.school = a.school AND m.learner = a.learner
ANY LEFT JOIN scores AS p ON p.place = a.position
WHERE (m.into != a.learner OR p.scored = 1) AND a.position NOT IN (SELECT place FROM doubles WHERE test = 0)`
	moveTestResults = `INSERT INTO {db}.test_results (id, learner, key_epoch, publisher, school, ` + "`group`" + `, year_group, test, test_name, subject, part, path,
	taken_on, score, max_score, made, right, wrong, duration_s, norm_kinds, norm_values, revision, source_partition, position, corrected, changed)
SELECT a.id, m.into, m.key_epoch, a.publisher, a.school, a.` + "`group`" + `, a.year_group, a.test, a.test_name, a.subject, a.part, a.path,
	a.taken_on, a.score, a.max_score, a.made, a.right, a.wrong, a.duration_s, a.norm_kinds, a.norm_values, a.revision, a.source_partition, a.position,
	a.corrected, {order:UInt64}
FROM (SELECT * FROM {db}.test_results FINAL WHERE (school, learner) IN (SELECT school, learner FROM mapping WHERE into != toFixedString('', 16))
	AND position < {order:UInt64} AND changed < {order:UInt64}) AS a
INNER JOIN mapping AS m ON m.school = a.school AND m.learner = a.learner
WHERE m.into != a.learner AND a.position NOT IN (SELECT place FROM doubles WHERE test = 1)`
	moveDays = `INSERT INTO {db}.skills_daily (school, learner, layer, key, day, subject, ` + "`group`" + `, year_group, mean, variance, answers, position)
SELECT d.school, m.into, d.layer, d.key, d.day, d.subject, d.` + "`group`" + `, d.year_group, d.mean, d.variance, d.answers, d.position
FROM (SELECT * FROM {db}.skills_daily FINAL WHERE (school, learner) IN (SELECT school, learner FROM mapping WHERE into != toFixedString('', 16))
	AND position < {order:UInt64}) AS d
INNER JOIN mapping AS m ON m.school = d.school AND m.learner = d.learner
WHERE m.into != d.learner`
	moveVacated = `INSERT INTO {db}.vacated (partition, learner, answered_ms)
SELECT v.partition, m.into, v.answered_ms
FROM (SELECT partition, learner, answered_ms FROM {db}.vacated FINAL WHERE partition = {partition:UInt16} AND learner IN (SELECT learner FROM mapping)) AS v
INNER JOIN mapping AS m ON m.learner = v.learner
WHERE m.into != v.learner AND m.into != toFixedString('', 16)`
	moveRelearnt = `INSERT INTO {db}.relearnt (partition, learner, position)
SELECT r.partition, m.into, r.position
FROM (SELECT partition, learner, position FROM {db}.relearnt FINAL WHERE partition = {partition:UInt16} AND learner IN (SELECT learner FROM mapping)) AS r
INNER JOIN mapping AS m ON m.learner = r.learner
WHERE m.into != r.learner AND m.into != toFixedString('', 16)`
)

// moveLeft: keys that corrections have left go along with a learner, so that what
// first stood there is still known when it is delivered again. One at which an
// answer stands afterwards, of the same learner, is none.
const moveLeft = `INSERT INTO {db}.{table} (id, learner, school, {moment}, source_partition, position, changed, is_deleted)
SELECT l.id, m.into, l.school, l.moment, l.newest.2, l.newest.3, {order:UInt64}, 1
FROM (
	SELECT id, school, learner, {moment} AS moment, argMax((is_deleted, source_partition, position, changed), version) AS newest FROM {db}.{table}
	WHERE (school, learner) IN (SELECT school, learner FROM mapping WHERE into != learner AND into != toFixedString('', 16))
	GROUP BY school, learner, {moment}, id
) AS l
INNER JOIN mapping AS m ON m.school = l.school AND m.learner = l.learner
WHERE l.newest.1 = 1 AND l.newest.4 < {order:UInt64} AND (l.school, m.into, l.id, l.moment) NOT IN (
	SELECT school, learner, id, {moment} FROM {db}.{table} FINAL WHERE (school, learner) IN (SELECT school, into FROM mapping)
	UNION ALL
	SELECT a.school, o.into, a.id, a.moment
	FROM (SELECT school, learner, id, {moment} AS moment FROM {db}.{table} FINAL WHERE (school, learner) IN (SELECT school, learner FROM mapping)) AS a
	INNER JOIN mapping AS o ON o.school = a.school AND o.learner = a.learner)`

// arrive writes rows in their new places.
func (m *amending) arrive(ctx context.Context) error {
	a, database := m.a, m.store.config.Database
	ledger, relearnt := newLedgerBlock(database), newRelearntBlock(database)
	if a.Rebuild != 0 {
		return m.arriveRebuilt(ctx, ledger)
	}
	blocks := []*block{&ledger.block, &relearnt.block}
	relearnt.append(a)
	switch {
	case a.Answers != nil:
		vacated, fresh, replaced := newVacatedBlock(database), newAnswersBlock(database), newReplacedAnswersBlock(database)
		vacated.append(a)
		fresh.append(a.Partition, a.Answers, a.Skip, a.Said)
		replaced.append(a)
		ledger.appendAmended(a, contentAnswers, a.Answers.EventID[:a.Answers.Rows])
		blocks = append(blocks, &vacated.block, &fresh.block, &replaced.block)
	case a.TestResults != nil:
		fresh, replaced := newTestResultsBlock(database), newReplacedTestResultsBlock(database)
		fresh.append(a.Partition, a.TestResults, a.Skip)
		replaced.append(a)
		ledger.appendAmended(a, contentTestResults, a.TestResults.EventID[:a.TestResults.Rows])
		blocks = append(blocks, &fresh.block, &replaced.block)
	default:
		ledger.appendCommands(a)
	}
	if err := m.insert(ctx, blocks...); err != nil {
		return err
	}
	statements := []string{}
	if len(a.Rescored) > 0 || len(a.Departures) > 0 {
		statements = append(statements, moveAnswers)
	}
	if len(a.Departures) > 0 {
		statements = append(statements, moveTestResults, moveDays, moveVacated, moveRelearnt,
			archiveOf(transform.AnswersArchive).fill(moveLeft), archiveOf(transform.TestResultsArchive).fill(moveLeft))
	}
	for _, statement := range statements {
		if err := m.run(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// What leaves its place stays as a row that says so, with its place in the log
// and nothing of its contents.
const (
	leaveArchive = `INSERT INTO {db}.{table} (id, learner, school, {moment}, source_partition, position, changed, is_deleted)
SELECT id, learner, school, {moment}, source_partition, position, {order:UInt64}, 1
FROM {db}.{table} FINAL
WHERE (school, learner) IN (SELECT school, learner FROM mapping WHERE into != learner)
	AND position < {order:UInt64} AND changed < {order:UInt64}`
	leaveDays = `INSERT INTO {db}.skills_daily (school, learner, layer, key, day, position, is_deleted)
SELECT school, learner, layer, key, day, {order:UInt64}, 1
FROM {db}.skills_daily FINAL
WHERE (school, learner) IN (SELECT school, learner FROM mapping WHERE into != learner) AND position < {order:UInt64}`
)

// leave takes rows out of the places that they have left.
func (m *amending) leave(ctx context.Context) error {
	which := transform.AnswersArchive
	if m.a.TestResults != nil {
		which = transform.TestResultsArchive
	}
	left := newLeftBlock(m.store.config.Database, archiveOf(which))
	left.append(m.a)
	if err := m.insert(ctx, &left.block); err != nil {
		return err
	}
	if len(m.a.Departures) == 0 {
		return nil
	}
	for _, statement := range []string{archiveOf(transform.AnswersArchive).fill(leaveArchive),
		archiveOf(transform.TestResultsArchive).fill(leaveArchive), leaveDays} {
		if err := m.run(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (m *amending) skills(ctx context.Context) error {
	departed, skills := newDepartedBlock(m.store.config.Database), newSkillsBlock(m.store.config.Database)
	// One block tells that a learner left its token and arrived at another. What is
	// hidden by departed before that is lost to whoever restores in between.
	skills.append(m.a.Partition, &m.a.Skills, 0, m.a.Skills.Len())
	if err := m.insert(ctx, &skills.block); err != nil {
		return err
	}
	departed.append(m.a)
	return m.insert(ctx, &departed.block)
}

func (m *amending) progress(ctx context.Context) error {
	progress := newProgressBlock(m.store.config.Database)
	progress.append(&m.a.Checkpoint)
	return m.insert(ctx, &progress.block)
}

// run runs a statement with the tables mapping (where tokens go; one that stays
// goes to itself), scores (what answers say) and doubles (rows that don't come
// along) beside it.
func (m *amending) run(ctx context.Context, body string) error {
	a := m.a
	var school wordColumn
	school.init()
	var learner, into proto.ColFixedStr16
	var epoch proto.ColUInt32
	add := func(name transform.LearnerName, target answer.Token, keyEpoch uint32) {
		school.appendWord(name.School)
		learner = append(learner, name.Learner.Bytes())
		into = append(into, target.Bytes())
		epoch = append(epoch, keyEpoch)
	}
	for _, d := range a.Departures {
		add(d.LearnerName, d.Into, d.KeyEpoch)
	}
	for _, name := range a.Learners {
		add(name, name.Learner, 0)
	}
	var place proto.ColUInt64
	var gradient proto.ColInt32
	var information proto.ColUInt16
	var scored proto.ColUInt8
	for _, r := range a.Rescored {
		place = append(place, uint64(r.Position))
		gradient = append(gradient, r.Gradient)
		information = append(information, r.Information)
		scored = append(scored, 1)
	}
	var doubled proto.ColUInt64
	var test proto.ColUInt8
	for i, list := range [][]transform.Double{a.Doubles, a.TestDoubles} {
		for _, d := range list {
			doubled = append(doubled, uint64(d.Position))
			test = append(test, uint8(i))
		}
	}
	tables := []ch.ExternalTable{
		{Name: "doubles", Data: proto.Input{column("place", &doubled), column("test", &test)}},
		{Name: "mapping", Data: proto.Input{column("school", &school), column("learner", &learner), column("into", &into), column("key_epoch", &epoch)}},
		{Name: "scores", Data: proto.Input{column("place", &place), column("gradient", &gradient), column("information", &information), column("scored", &scored)}},
	}
	err := m.store.read(ctx, func() ch.Query {
		return ch.Query{Body: m.store.fill(body), ExternalTables: tables, Parameters: ch.Parameters(map[string]any{"order": uint64(a.Order), "partition": a.Partition})}
	})
	if err != nil {
		table, _, _ := strings.Cut(strings.TrimPrefix(m.store.fill(body), "INSERT INTO "), " ")
		return fmt.Errorf("move rows of %s: %w", table, err)
	}
	return nil
}
