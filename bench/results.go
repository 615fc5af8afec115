package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Result is one measured figure.
type Result struct {
	Name  string  `json:"name"` // snake_case, stable over time
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Ratio float64 `json:"ratio,omitempty"` // Value divided by that of To, from the same run
	To    string  `json:"to,omitempty"`    // name of the figure that it is compared with

	What string `json:"-"` // one sentence for the document
}

// Results are the figures of one run on one machine.
type Results struct {
	Command string
	Taken   time.Time
	Machine Machine
	Rows    int // answers in the stream
	Figures []Result
}

// Machine says where figures were taken.
type Machine struct {
	CPU      string
	Cores    int
	MemoryMB int
	System   string
	Go       string
}

// ThisMachine describes the machine that the program runs on. What the system
// does not tell stays empty.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.GOMAXPROCS(0), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "GOAMD64" {
				m.System += " " + s.Value
			}
		}
	}
	m.CPU = procField("/proc/cpuinfo", "model name")
	if kb, err := strconv.Atoi(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB")); err == nil {
		m.MemoryMB = kb / 1024
	}
	return m
}

// procField returns the value of the first line "name: value" of a file of the
// proc file system, empty where there is none.
func procField(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// add appends a figure.
func (r *Results) add(name string, value float64, unit, what string) {
	r.Figures = append(r.Figures, Result{Name: name, Value: value, Unit: unit, What: what})
}

// compare sets the ratio of a figure to another. Both must be there.
func (r *Results) compare(name, to string) {
	figure, other := r.find(name), r.find(to)
	if figure == nil || other == nil {
		panic("bench: compare needs both figures first: " + name + ", " + to)
	}
	figure.To = to
	if other.Value != 0 {
		figure.Ratio = figure.Value / other.Value
	}
}

func (r *Results) find(name string) *Result {
	for i := range r.Figures {
		if r.Figures[i].Name == name {
			return &r.Figures[i]
		}
	}
	return nil
}

// Value returns a figure by its name, NaN when it was not measured.
func (r *Results) Value(name string) float64 {
	if f := r.find(name); f != nil {
		return f.Value
	}
	return math.NaN()
}

// WriteJSON writes the figures as a JSON array of objects.
func (r *Results) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r.Figures); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// WriteMarkdown writes docs/performance.md: what was measured, where, with which
// command, and every figure beside what it is compared with.
func (r *Results) WriteMarkdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "# Performance\n\nWritten by `%s`; do not edit. All figures, and both sides of every ratio, are of this one run.\n\n", r.Command)
	fmt.Fprintf(b, "| machine | |\n|---|---|\n| processor | %s |\n| cores used | %d |\n| memory | %d MB |\n| system | %s, %s |\n| taken | %s |\n| answers in the stream | %s |\n\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.MemoryMB, r.Machine.System, r.Machine.Go, r.Taken.UTC().Format(time.DateOnly), grouped(float64(r.Rows)))
	b.WriteString(performanceNotes)
	b.WriteString("| figure | value | ratio | what it is |\n|---|---:|---|---|\n")
	for _, f := range r.Figures {
		ratio := ""
		if f.To != "" {
			ratio = fmt.Sprintf("%.2f × `%s`", f.Ratio, f.To)
		}
		fmt.Fprintf(b, "| `%s` | %s %s | %s | %s |\n", f.Name, grouped(f.Value), f.Unit, ratio, f.What)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write performance document: %w", err)
	}
	return nil
}

const performanceNotes = `Broker, ClickHouse, all stages and the load itself share these cores; nothing ran elsewhere. Rows are simulated answers as
described in ` + "`bench/README.md`" + `. A stage is measured alone on a topic that was filled before; end to end means sealed answers in
` + "`raw`" + ` until they are scored and committed in ClickHouse. The bare limits do only the one thing that their name says, with the
same rows.

`

// grouped renders a value with thin groups of three digits, and no more decimals
// than it deserves.
func grouped(v float64) string {
	decimals := 0
	switch a := math.Abs(v); {
	case a == 0 || a >= 100:
	case a >= 10:
		decimals = 1
	case a >= 0.1:
		decimals = 2
	default:
		decimals = 4
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	whole, fraction, _ := strings.Cut(text, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction != "" {
		whole += "." + fraction
	}
	return sign + whole
}
