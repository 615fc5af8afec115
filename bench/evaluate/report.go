package evaluate

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// System is what was measured of one system.
type System struct {
	Key  string `json:"-"`
	Name string `json:"-"`
	Quality
	DifficultySE       *float64 `json:"difficulty_se,omitempty"`          // logits
	DifficultyBound    *float64 `json:"difficulty_bound,omitempty"`       // logits
	DifficultyReported *float64 `json:"difficulty_reported_se,omitempty"` // logits
	SkillR             *float64 `json:"skill_r,omitempty"`
	PercentileMAE      *float64 `json:"percentile_mae,omitempty"` // points of 100
	Reliability        []Bucket `json:"reliability,omitempty"`
	Nanoseconds        float64  `json:"ns_per_answer"` // predict and learn
}

// Report is everything that was measured.
type Report struct {
	Answers  int // scored
	Taught   int // answers that only taught
	Learners int
	Items    int
	Skills   int

	Systems []System    // leerstroom first
	Experts []System    // the stages of our own engine
	Dense   *Precision  // of difficulties, all learners; nil = too few answers
	Sparse  *Precision  // of difficulties, a fifth of the learners
	Skill   []Agreement // with plausible values, nil without
}

// writeJSON writes one object per system, by its key.
func (r *Report) writeJSON(w io.Writer) error {
	systems := make(map[string]System, len(r.Systems))
	for _, s := range r.Systems {
		systems[s.Key] = s
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(systems); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// writeTable writes the report for people.
func (r *Report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) } // Flush returns the first error
	line("%d answers scored, %d taught first; %d learners, %d items, %d skills\n", r.Answers, r.Taught, r.Learners, r.Items, r.Skills)
	line("prediction\tAUC\tlog-loss\tRMSE\tECE\tns/answer\t")
	for _, s := range r.Systems {
		line("%s\t%.4f\t%.4f\t%.4f\t%.4f\t%.0f\t", s.Name, s.AUC, s.LogLoss, s.RMSE, s.ECE, s.Nanoseconds)
	}
	for _, s := range r.Experts {
		line("Leerstroom, %s\t%.4f\t%.4f\t%.4f\t%.4f\t\t", s.Name, s.AUC, s.LogLoss, s.RMSE, s.ECE)
	}
	for _, p := range []*Precision{r.Dense, r.Sparse} {
		if p == nil {
			continue
		}
		line("\ndifficulty, %.0f answers per item and half\tSE\t/ bound\t", p.PerItem)
		line("information bound\t%.4f\t1.00\t", p.Bound)
		for _, s := range []struct{ key, name string }{
			{keyLeerstroom, "refit"}, {keyOnline, "filter, online"},
			{keyItemMean, "logit of share right"}, {keyElo, "Elo 1/.05"}, {keyEloFixed, "Elo .4"},
		} {
			line("%s\t%.4f\t%.2f\t", s.name, p.Measured[s.key], p.Measured[s.key]/p.Bound)
		}
		line("reported by the refit\t%.4f\t%.2f\t", p.Reported, p.Reported/p.Bound)
	}
	if r.Skill != nil {
		line("\nskill\tr(mean PV)\tr(PV1)\tpercentile error\t")
		for _, s := range r.Skill {
			line("%s\t%.4f\t%.4f\t%.2f\t", s.Name, s.MeanR, s.FirstR, s.PercentileMAE)
		}
	}
	line("\nreliability of Leerstroom\tpredicted\tobserved\tanswers\t")
	for _, b := range r.Systems[0].Reliability {
		line("\t%.3f\t%.3f\t%d\t", b.Predicted, b.Observed, b.Answers)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
