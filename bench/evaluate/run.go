package evaluate

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/leerstroom/leerstroom/transform/filter/forecast"
)

// The orders in which answers can be replayed.
const (
	OrderTime = "time" // by timestamp, answers of the same second as in the file
	OrderFile = "file" // as in the file
)

// Config says what is evaluated.
type Config struct {
	Answers  string // file: learner, item, correct and perhaps timestamp, skillset
	Train    string // file of the same form that teaches first and is not scored; "" = none
	Skills   string // file: item, skill, or item and a 0/1 column per skill; "" = none
	Persons  string // file: person, pv1, pv2, …; "" = none
	Order    string // OrderTime or OrderFile, default OrderTime
	JSON     bool   // write the report as JSON instead of a table
	Plots    string // directory for SVG figures; "" = none
	Splits   int    // random halvings of the learners for the precision of difficulties, default 10
	Progress func(stage string, done, total int)
}

// Validate names the field that is out of range.
func (c *Config) Validate() error {
	switch {
	case c.Answers == "":
		return errors.New("evaluate answers: want a file")
	case c.Order != "" && c.Order != OrderTime && c.Order != OrderFile:
		return fmt.Errorf("evaluate order: want %s or %s", OrderTime, OrderFile)
	case c.Splits < 0 || c.Splits > 1000:
		return errors.New("evaluate splits: want 0 to 1000")
	}
	return nil
}

// Run evaluates and writes the report to stdout, and the figures to the
// directory of plots.
func Run(ctx context.Context, c Config, stdout io.Writer) error {
	r, err := Evaluate(ctx, c)
	if err != nil {
		return err
	}
	if c.Plots != "" {
		if err := r.writePlots(c.Plots); err != nil {
			return err
		}
	}
	if c.JSON {
		return r.writeJSON(stdout)
	}
	return r.writeTable(stdout)
}

// Evaluate evaluates all systems.
func Evaluate(ctx context.Context, c Config) (*Report, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Splits == 0 {
		c.Splits = 10
	}
	if c.Progress == nil {
		c.Progress = func(string, int, int) {}
	}
	a, err := Load(ctx, c.Train, c.Answers, c.Skills)
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	if c.Order != OrderFile {
		a.sortByTime()
	}
	r := &Report{Answers: a.Len() - a.Scored, Taught: a.Scored, Learners: len(a.Learners), Items: len(a.Items), Skills: len(a.Skills)}
	if err := r.predict(ctx, a, &c); err != nil {
		return nil, fmt.Errorf("evaluate predictions: %w", err)
	}
	if err := r.measureDifficulty(ctx, a, &c); err != nil {
		return nil, fmt.Errorf("evaluate difficulty: %w", err)
	}
	if c.Persons != "" {
		if err := r.measureSkill(ctx, a, &c); err != nil {
			return nil, fmt.Errorf("evaluate skill: %w", err)
		}
	}
	return r, nil
}

// Keys of the systems in the report.
const (
	keyLeerstroom = "leerstroom"
	keyElo        = "elo_1_05"
	keyEloFixed   = "elo_04"
	keyEloTree    = "elo_tree"
	keyItemMean   = "item_mean"
	keyServed     = "leerstroom_served"
)

// engine is our own system: a forecast model fed from the columns.
type engine struct {
	model   *forecast.Model
	experts [4][]float64 // scored predictions of filter, quick, head, full
	tags    []uint64
}

func newEngine() (*engine, error) {
	m, err := forecast.New(forecast.Config{})
	if err != nil {
		return nil, err
	}
	return &engine{model: m}, nil
}

func (s *engine) predict(a *Answers, i int) float64 {
	e := forecast.Event{
		Learner: uint64(a.Learner[i]) + 1,
		Item:    uint64(a.Item[i]) + 1,
		Goal:    uint64(a.Skill[i] + 1), // none becomes 0
		AtMs:    a.Time[i] * 1000,
	}
	if a.Tags != nil {
		s.tags = s.tags[:0]
		for _, tag := range a.Tags[a.Item[i]] {
			s.tags = append(s.tags, uint64(tag)+1)
		}
		e.Tags = s.tags
	}
	f := s.model.Predict(e)
	if i >= a.Scored {
		for k, p := range [4]float64{f.Filter, f.Quick, f.Head, f.Full} {
			s.experts[k] = append(s.experts[k], p)
		}
	}
	return f.P
}

func (s *engine) learn(a *Answers, i int) {
	if a.Took == nil {
		s.model.Learn(a.Score[i])
		return
	}
	s.model.LearnTimed(a.Score[i], a.Took[i])
}

// predict replays the answers through every system.
func (r *Report) predict(ctx context.Context, a *Answers, c *Config) error {
	own, err := newEngine()
	if err != nil {
		return err
	}
	score := a.Score[a.Scored:]
	for k, s := range []struct {
		key    string
		name   string
		system system
	}{
		{keyLeerstroom, "Leerstroom", own},
		{keyElo, "Elo 1/.05", newElo(a, 1, 0.05)},
		{keyEloFixed, "Elo .4", newElo(a, 0.4, 0)},
		{keyEloTree, "Elo tree", newEloTree(a)},
		{keyItemMean, "item mean", newItemMean(a)},
		{keyServed, "Leerstroom, as served", newServed(a, servedEpoch, true)},
	} {
		p, nanoseconds, err := replay(ctx, a, s.system, func(done int) { c.Progress("predict", k*a.Len()+done, 6*a.Len()) })
		if err != nil {
			return err
		}
		r.Systems = append(r.Systems, System{
			Key: s.key, Name: s.name, Quality: measure(p, score),
			Reliability: reliability(p, score, reliabilityBuckets), Nanoseconds: nanoseconds,
		})
	}
	for k, name := range []string{"filter alone", "quick filter", "with head", "with contexts"} {
		r.Experts = append(r.Experts, System{Name: name, Quality: measure(own.experts[k], score)})
	}
	return nil
}

// reliabilityBuckets is the number of points of the reliability curve.
const reliabilityBuckets = 20
