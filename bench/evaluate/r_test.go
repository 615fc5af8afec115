package evaluate

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/transform/filter"
)

func TestR(t *testing.T) {
	d := "/work/shared/datasets/"
	for _, c := range []Config{{Answers: d + "timss2011_g4/answers.csv.gz"}, {Answers: d + "statics/test.csv.gz", Train: d + "statics/train.csv.gz", Skills: d + "statics/q.csv.gz"}, {Answers: d + "algebra05/answers.csv.gz"}} {
		a, err := Load(context.Background(), c.Train, c.Answers, c.Skills)
		if err != nil {
			t.Fatal(err)
		}
		for _, sl := range []bool{false, true} {
			t0 := time.Now()
			s, err := filter.Refit(responses(a), len(a.Learners), len(a.Items), filter.RefitConfig{Slopes: sl, MaxRounds: 300})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println(c.Answers, sl, s.Rounds, s.Learners, s.Items, s.Slopes, time.Since(t0))
		}
		t0 := time.Now()
		p, err := splitHalves(context.Background(), a, firstAnswers(a), 1, 3, func(int) {})
		fmt.Println(p, err, time.Since(t0))
	}
}
