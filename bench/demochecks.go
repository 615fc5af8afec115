package bench

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"time"
)

// settle is how long the served state may lag behind the stored one. It is
// generous: the check is that it arrives, the bench measures how soon.
const settle = 20 * time.Second

// settle polls a check of the served state until it holds, fails for good, or
// settle is over; whether it holds then is for the caller to judge.
func (d *demo) settle(ctx context.Context, done func() (bool, error)) error {
	deadline, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	err := poll(deadline, 100*time.Millisecond, func() (bool, error) {
		ok, err := done()
		if notYet(err) {
			return false, nil
		}
		return ok, err
	})
	if deadline.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// difficulties compares estimated with true difficulties, as the API gives them.
func (d *demo) difficulties(ctx context.Context) error {
	answered := d.firstAnswers()
	expected := 0
	for _, n := range answered {
		if n >= 10 {
			expected++
		}
	}
	var estimated, truth []float64
	err := d.settle(ctx, func() (bool, error) {
		estimated, truth = estimated[:0], truth[:0]
		for goal := range d.config.Population.Goals {
			list, err := d.api.exercises(ctx, d.config.Population.Goals[goal].Key)
			if err != nil {
				return false, err
			}
			for i := range list {
				difficulty, known := d.config.Population.TrueDifficulty(list[i].ID)
				if known && list[i].Difficulty != nil {
					estimated, truth = append(estimated, *list[i].Difficulty), append(truth, difficulty)
				}
			}
		}
		return float64(len(estimated)) >= minJudged*float64(expected), nil
	})
	if err != nil {
		return fmt.Errorf("read difficulties: %w", err)
	}
	d.report.Exercises, d.report.Correlation = len(estimated), correlation(estimated, truth)
	d.report.check("the API gives difficulties", expected > 0 && float64(len(estimated)) >= minJudged*float64(expected),
		"%d of %d exercises with 10 first answers or more", len(estimated), expected)
	d.report.check("difficulties are recovered", d.report.Correlation >= minCorrelation, "r = %.3f, want %.2f or more", d.report.Correlation, minCorrelation)
	return nil
}

// firstAnswers counts the first answers of learners to each item.
func (d *demo) firstAnswers() []int {
	counts := make([]int, len(d.config.Population.Items))
	for rows := range slots(d.workload) {
		for i := range rows {
			if rows[i].Attempt == 1 {
				counts[rows[i].Item]++
			}
		}
	}
	return counts
}

// busiest returns the learner of the first school who answers most, with the
// number of answers.
func (d *demo) busiest() (learner int, answers int64) {
	counts := map[int32]int64{}
	stream := d.workload.School(0)
	for more := true; more; {
		var rows []Row
		rows, more = stream.NextSlot(nil)
		for i := range rows {
			counts[rows[i].Learner]++
			if n := counts[rows[i].Learner]; n > answers || n == answers && int(rows[i].Learner) < learner {
				learner, answers = int(rows[i].Learner), n
			}
		}
	}
	return learner, answers
}

var tokenForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// learner looks at one learner through the eyes of an adaptive engine.
func (d *demo) learner(ctx context.Context) error {
	p := d.config.Population
	learner, answers := d.busiest()
	var token string
	var lines []percentileReply
	err := d.settle(ctx, func() (bool, error) {
		tokens, err := d.api.pseudonyms(ctx, p, p.Learners[learner].School, []int{learner}, "eckid")
		if err != nil {
			return false, err
		}
		if token = tokens[0]; token == "" {
			return false, nil
		}
		lines, err = d.api.percentiles(ctx, token)
		return err == nil && overallAnswers(lines) >= answers, err
	})
	if err != nil {
		return fmt.Errorf("read a learner's percentiles: %w", err)
	}
	d.report.Token = token
	d.report.check("the learner's identifier gives a token", tokenForm.MatchString(token), "%d hex digits", len(token))
	d.report.check("the learner's skill contains every answer", overallAnswers(lines) == answers, "%d of %d answers", overallAnswers(lines), answers)
	d.percentiles(learner, lines)
	if token == "" {
		return nil
	}
	next, err := d.api.nextExercise(ctx, token, "")
	if err != nil {
		return fmt.Errorf("ask for the next exercise: %w", err)
	}
	d.report.Next = next
	_, known := p.TrueDifficulty(next.Exercise)
	fits := math.Abs(next.Expected-next.Target) < 0.25 || next.Random || next.Reason == "off-target"
	d.report.check("the next exercise exists and is expected to fit, or says why not", known && fits && next.Expected > 0 && next.Expected < 1,
		"expected success %.2f, target %.2f, because: %s", next.Expected, next.Target, next.Reason)
	return nil
}

// percentiles notes the learner's lines and checks that each layer is there and
// lies in its band.
func (d *demo) percentiles(learner int, lines []percentileReply) {
	layers := map[string]int{}
	inBand := true
	for i := range lines {
		l := &lines[i]
		if l.Percentile == nil || l.Low == nil || l.High == nil || l.Learners == nil {
			continue // the norm group is small
		}
		layers[l.Layer]++
		inBand = inBand && 0 <= *l.Low && *l.Low <= *l.Percentile && *l.Percentile <= *l.High && *l.High <= 100
		line := PercentileLine{Layer: l.Layer, Answers: l.Answers, Skill: l.Skill.Value,
			Percentile: *l.Percentile, Low: *l.Low, High: *l.High, Learners: *l.Learners}
		p := d.config.Population
		truth := func(learner int) float64 { return p.TrueSkill(learner, "") }
		switch {
		case l.Goal != nil:
			line.Key, truth = *l.Goal, func(learner int) float64 { return p.TrueSkill(learner, *l.Goal) }
		case l.Subject != nil:
			line.Key, truth = *l.Subject, func(learner int) float64 { return p.TrueSubjectSkill(learner, *l.Subject) }
		}
		line.TruePercentile = p.truePercentile(learner, truth)
		d.report.Percentiles = append(d.report.Percentiles, line)
	}
	d.report.check("the learner has a percentile overall, in a subject and in a goal",
		layers["overall"] == 1 && layers["subject"] > 0 && layers["goal"] > 0,
		"%d overall, %d subjects, %d goals", layers["overall"], layers["subject"], layers["goal"])
	d.report.check("every percentile lies in its 90 % band", inBand && len(d.report.Percentiles) > 0, "%d percentiles", len(d.report.Percentiles))
}
