package bench

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

func TestResults(t *testing.T) {
	t.Parallel()
	r := &Results{Command: "make bench", Taken: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Machine: ThisMachine(), Rows: 5_000_000}
	r.add("end_to_end", 300_000, "rows/s", "raw to scored and stored")
	r.add("bare_insert", 1_200_000, "rows/s", "ready columns")
	r.compare("end_to_end", "bare_insert")
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0]["name"] != "end_to_end" || got[0]["ratio"] != 0.25 || got[0]["to"] != "bare_insert" || got[1]["ratio"] != nil {
		t.Errorf("results as JSON = %v", got)
	}
	b.Reset()
	if err := r.WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	if want := "| `end_to_end` | 300,000 rows/s | 0.25 × `bare_insert` | raw to scored and stored |"; !strings.Contains(b.String(), want) {
		t.Errorf("document lacks %q:\n%s", want, b.String())
	}
	if r.Value("end_to_end") != 300_000 || !math.IsNaN(r.Value("unknown")) {
		t.Error("Value does not find a figure, or finds one that is not there")
	}
}

func TestGrouped(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 1234567: "1,234,567", -1500: "-1,500", 12.34: "12.3", 0.5: "0.50", 0.0012: "0.0012", 999: "999", 100: "100"} {
		if got := grouped(v); got != want {
			t.Errorf("grouped(%v) = %q, want %q", v, got, want)
		}
	}
}
