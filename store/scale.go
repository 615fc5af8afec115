package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/transform"
)

// scaleBlock are rows of the table scales.
type scaleBlock struct {
	block
	number, version          proto.ColUInt64
	goal                     wordColumn
	answers, exercises       proto.ColInt64
	slope, shift, shiftError proto.ColFloat64
	head                     *proto.ColArr[float64]
}

// saveScale writes a scale, one row per goal.
func (s *Store) saveScale(ctx context.Context, version uint64, scale *transform.Scale) error {
	b := &scaleBlock{head: new(proto.ColFloat64).Array()}
	b.goal.init()
	b.block = newBlock(s.config.Database, "scales",
		column("number", &b.number), column("goal", &b.goal), column("version", &b.version), column("answers", &b.answers),
		column("exercises", &b.exercises), column("slope", &b.slope), column("shift", &b.shift), column("shift_error", &b.shiftError),
		column("head", b.head))
	goals := make([]string, 0, len(scale.Links))
	for _, link := range scale.Links {
		goals = append(goals, link.Goal)
		b.answers.Append(link.Answers)
		b.exercises.Append(int64(link.Exercises))
		b.slope.Append(link.Slope)
		b.shift.Append(link.Shift)
		b.shiftError.Append(link.ShiftError)
		b.head.Append(scale.Head.Weights[:])
	}
	b.number, b.version = fill(b.number, scale.Number, len(goals)), fill(b.version, version, len(goals))
	b.goal.appendWords(goals)
	if err := s.insert(ctx, &b.block); err != nil {
		return fmt.Errorf("save scale %d: %w", scale.Number, err)
	}
	return nil
}

const newestScale = `SELECT number, CAST(goal, 'String') AS goal_name, answers, exercises, slope, shift, shift_error, head
FROM {db}.scales FINAL WHERE number = (SELECT max(number) FROM {db}.scales WHERE version <= {version:UInt64}) ORDER BY goal_name`

// loadScale returns the newest scale of the versions up to one, nil when there is
// none.
func (s *Store) loadScale(ctx context.Context, version uint64) (*transform.Scale, error) {
	var scale *transform.Scale
	err := s.read(ctx, func() ch.Query {
		scale = nil
		var number proto.ColUInt64
		var goal proto.ColStr
		var answers, exercises proto.ColInt64
		var slope, shift, shiftError proto.ColFloat64
		head := new(proto.ColFloat64).Array()
		return ch.Query{
			Body:       s.fill(newestScale),
			Parameters: ch.Parameters(parameters{"version": version}),
			Result: proto.Results{{Name: "number", Data: &number}, {Name: "goal_name", Data: &goal}, {Name: "answers", Data: &answers},
				{Name: "exercises", Data: &exercises}, {Name: "slope", Data: &slope}, {Name: "shift", Data: &shift},
				{Name: "shift_error", Data: &shiftError}, {Name: "head", Data: head}},
			OnResult: func(_ context.Context, block proto.Block) error {
				for i := range block.Rows {
					if scale == nil {
						weights, err := transform.HeadOf(head.Row(i))
						if err != nil {
							return err
						}
						scale = &transform.Scale{Number: number[i], Head: weights}
					}
					scale.Links = append(scale.Links, transform.GoalLink{Goal: goal.Row(i), Answers: answers[i], Exercises: int(exercises[i]),
						Slope: slope[i], Shift: shift[i], ShiftError: shiftError[i]})
				}
				return nil
			},
		}
	})
	if err != nil {
		return nil, fmt.Errorf("load scale: %w", err)
	}
	return scale, nil
}

// RefitSource tells which answers of the archive a refit reads.
type RefitSource struct {
	UpTo    []answer.Position // by partition; later answers are left out
	Answers int64             // at most about so many: when there are more, a sample of the learners
}

const refitCount = `SELECT toInt64(count()) AS c0 FROM {db}.answers FINAL WHERE position <= [%s][source_partition + 1]`

const refitAnswers = `SELECT cityHash64(learner) AS learner_number, CAST(concat(publisher, ':', exercise), 'String') AS item, CAST(goal, 'String') AS goal_name,
	CAST(subject, 'String') AS subject_name, score, attempt, toUnixTimestamp64Milli(answered_at) AS at
FROM {db}.answers FINAL WHERE position <= [%s][source_partition + 1] AND intHash64(learner_number) %% {every:UInt64} = 0
ORDER BY school, learner, answered_at, id`

// CountRefitAnswers returns how many answers of the archive a refit could read.
func (s *Store) CountRefitAnswers(ctx context.Context, source RefitSource) (int64, error) {
	if err := s.catchUp(ctx, "answers"); err != nil {
		return 0, fmt.Errorf("count answers for a refit: %w", err)
	}
	count, err := s.integers(ctx, 1, s.fill(fmt.Sprintf(refitCount, source.upTo())), nil)
	if err != nil {
		return 0, fmt.Errorf("count answers for a refit: %w", err)
	}
	return count[0][0], nil
}

// upTo returns the positions as a list in SQL.
func (s *RefitSource) upTo() string {
	texts := make([]string, len(s.UpTo))
	for i, position := range s.UpTo {
		texts[i] = strconv.FormatUint(uint64(position), 10)
	}
	return strings.Join(texts, ",")
}

// RefitAnswers calls see with archived answers, learner by learner, each
// learner's in order. count is what CountRefitAnswers returned. A failure of the
// connection ends it.
func (s *Store) RefitAnswers(ctx context.Context, source RefitSource, count int64, see func(*transform.ArchivedAnswer)) error {
	every := uint64(max(1, (count+source.Answers-1)/max(1, source.Answers)))
	var learner proto.ColUInt64
	var item, goal, subject proto.ColStr
	var score proto.ColFloat64
	var attempt proto.ColUInt16
	var at proto.ColInt64
	err := s.pool.do(ctx, ch.Query{
		Body:       s.fill(fmt.Sprintf(refitAnswers, source.upTo())),
		Parameters: ch.Parameters(parameters{"every": every}),
		Result: proto.Results{{Name: "learner_number", Data: &learner}, {Name: "item", Data: &item}, {Name: "goal_name", Data: &goal},
			{Name: "subject_name", Data: &subject}, {Name: "score", Data: &score}, {Name: "attempt", Data: &attempt}, {Name: "at", Data: &at}},
		OnResult: func(_ context.Context, block proto.Block) error {
			for i := range block.Rows {
				see(&transform.ArchivedAnswer{Learner: learner[i], Item: item.Row(i), Goal: goal.Row(i), Subject: subject.Row(i),
					Score: score[i], Attempt: attempt[i], AnsweredAtMs: at[i]})
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("read answers for a refit: %w", err)
	}
	return nil
}
