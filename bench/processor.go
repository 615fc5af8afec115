package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine"
)

// processorTime is the processor time that each part of the system has used so
// far, in seconds. It tells what a row costs where wall time would also tell who
// else was at work.
type processorTime struct {
	stages, kafka, clickhouse float64
	merges                    float64 // what of clickhouse went into merges
}

func (t processorTime) all() float64 { return t.stages + t.kafka + t.clickhouse }

// readProcessorTime returns false where the system doesn't tell.
func readProcessorTime() (processorTime, bool) { return processorTimeOf(os.Getpid()) }

// processorTimeOf reads the processor time of a process and of its engines.
func processorTimeOf(id int) (t processorTime, ok bool) {
	process := strconv.Itoa(id)
	if t.stages, ok = processorSeconds(process); !ok {
		return t, false
	}
	threads, err := os.ReadDir("/proc/" + process + "/task")
	if err != nil {
		return t, false
	}
	for _, thread := range threads {
		children, err := os.ReadFile("/proc/" + process + "/task/" + thread.Name() + "/children")
		if err != nil {
			continue // the thread ended
		}
		for _, child := range strings.Fields(string(children)) {
			command, err := os.ReadFile("/proc/" + child + "/cmdline")
			if err != nil {
				continue // the child ended
			}
			seconds, _ := processorSeconds(child)
			switch words := strings.Split(string(command), "\x00"); {
			case len(words) > 1 && words[1] == engine.ChildKafka:
				t.kafka += seconds
			case len(words) > 1 && words[1] == engine.ChildClickHouse:
				t.clickhouse += seconds
				t.merges += mergeSeconds(child)
			}
		}
	}
	return t, t.clickhouse > 0
}

// mergeSeconds reads the time of those threads of ClickHouse that merge.
func mergeSeconds(process string) (sum float64) {
	const named = "MergeMutate"
	tasks := "/proc/" + process + "/task/"
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return 0
	}
	for _, thread := range threads {
		name, err := os.ReadFile(tasks + thread.Name() + "/comm")
		if err != nil || strings.TrimSpace(string(name)) != named {
			continue // or the thread ended
		}
		seconds, _ := processorSeconds(process + "/task/" + thread.Name())
		sum += seconds
	}
	return sum
}

// processorSeconds reads the user and system time of a process, or of a thread.
func processorSeconds(process string) (float64, bool) {
	const ticksPerSecond = 100 // on every platform of Linux that Go runs on
	text, err := os.ReadFile("/proc/" + process + "/stat")
	if err != nil {
		return 0, false
	}
	// The name in parentheses may hold blanks; the state comes after it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const user, system = 11, 12
	if len(fields) <= system {
		return 0, false
	}
	ticks := 0.0
	for _, f := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, false
		}
		ticks += n
	}
	return ticks / ticksPerSecond, true
}

// Parts of the system whose processor time is told.
const (
	partStages     = "stages"
	partKafka      = "kafka"
	partClickHouse = "clickhouse"
)

// partTime is the processor time that one part has used.
type partTime struct {
	name, what string
	seconds    float64
}

func (t processorTime) since(before processorTime) []partTime {
	return []partTime{
		{partStages, "in the process of the stages and of the measure", t.stages - before.stages},
		{partKafka, "in the broker", t.kafka - before.kafka},
		{partClickHouse, "in ClickHouse, with its merges", t.clickhouse - before.clickhouse},
	}
}

// watchShare reports which share of all cores each part takes between the call and
// the call of the returned function.
func (r *runner) watchShare(suffix string) (report func()) {
	before, ok := readProcessorTime()
	began := time.Now()
	return func() {
		after, still := readProcessorTime()
		if !ok || !still {
			return
		}
		available := time.Since(began).Seconds() * float64(runtime.NumCPU())
		for _, part := range after.since(before) {
			if part.seconds == 0 {
				continue // it has no process of its own
			}
			r.results.add("processor_"+part.name+suffix, 100*part.seconds/available, "%", "of the processor time of all cores: "+part.what)
		}
	}
}

// watchProcessor reports the processor time per row of some parts between the
// call and the call of the returned function; without names, of all, and what
// rate the cores could reach at most at that cost.
func (r *runner) watchProcessor(name, what string, parts ...string) (report func()) {
	before, ok := readProcessorTime()
	return func() {
		after, still := readProcessorTime()
		if !ok || !still {
			return
		}
		sum := 0.0
		for _, part := range after.since(before) {
			if len(parts) > 0 && !slices.Contains(parts, part.name) {
				continue
			}
			perRow := part.seconds * 1e9 / float64(r.total())
			sum += perRow
			r.results.add(name+"_processor_"+part.name, perRow, "ns/row", what+": processor time per row "+part.what)
		}
		if len(parts) == 0 {
			cores := float64(runtime.NumCPU())
			r.results.add(name+"_limit_rows_per_second", cores*1e9/sum, "rows/s",
				fmt.Sprintf("what %g cores could do if they never waited: their time divided by the sum of the parts", cores))
		}
	}
}
