package evaluate

import (
	"context"
	"os"
	"testing"
)

func TestW(t *testing.T) {
	d := "/work/shared/datasets/"
	for n, c := range map[string]Config{"timss": {Answers: d + "timss2011_g4/answers.csv.gz", Persons: d + "timss2011_g4/persons.csv.gz", Skills: d + "timss2011_g4/qmatrix.csv"}, "statics": {Answers: d + "statics/test.csv.gz", Train: d + "statics/train.csv.gz", Skills: d + "statics/q.csv.gz"}, "algebra": {Answers: d + "algebra05/answers.csv.gz", Skills: d + "algebra05/q.csv.gz"}} {
		t.Run(n, func(t *testing.T) {
			t.Parallel()
			c.Plots = "/tmp/plots/" + n
			f, _ := os.Create("/tmp/plots-" + n + ".txt")
			if err := Run(context.Background(), c, f); err != nil {
				t.Fatal(err)
			}
		})
	}
}
