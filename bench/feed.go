package bench

// A body is one request of one publisher: whole NDJSON lines.
type body struct {
	publisher int
	rows      int
	data      []byte
}

// feed renders the answers of some schools as request bodies. Bodies of one
// batch must be sent in order and be answered before the next batch is asked
// for; then every learner's answers arrive in order of time. It is not safe for
// concurrent use.
type feed struct {
	w        *Workload
	lines    *lineWriter
	open     []*SchoolStream
	cursor   int
	bodyRows int
	rows     []Row
	current  []int // per publisher: index in bodies of the body being filled, -1 = none
	bodies   []body
	spare    [][]byte
}

// newFeed feeds the schools s with s % of == index.
func newFeed(w *Workload, lines *lineWriter, index, of, bodyRows int) *feed {
	f := &feed{w: w, lines: lines, bodyRows: bodyRows, current: make([]int, len(w.Population.Publishers))}
	for s := index; s < len(w.Population.Schools); s += of {
		f.open = append(f.open, w.School(s))
	}
	return f
}

// next returns the following batch, nil at the end. The batch is valid until the
// next call.
func (f *feed) next() []body {
	for len(f.open) > 0 {
		if bodies := f.batch(); len(bodies) > 0 {
			return bodies
		}
		// In these slots every session leaves late, or is left out.
	}
	return nil
}

func (f *feed) batch() []body {
	for i := range f.bodies {
		f.spare = append(f.spare, f.bodies[i].data[:0])
	}
	f.bodies = f.bodies[:0]
	for i := range f.current {
		f.current[i] = -1
	}
	// One slot per school at most: a learner works with one publisher in a slot, so
	// the order between bodies of two publishers does not matter.
	for turn, rows := len(f.open), 0; turn > 0 && rows < f.bodyRows; turn-- {
		f.cursor %= len(f.open)
		slot, more := f.open[f.cursor].NextSlot(f.rows[:0])
		f.rows = slot
		rows += len(slot)
		f.render(slot)
		if more {
			f.cursor++
		} else {
			f.open = append(f.open[:f.cursor], f.open[f.cursor+1:]...)
		}
		if len(f.open) == 0 {
			break
		}
	}
	return f.bodies
}

func (f *feed) render(slot []Row) {
	for i := range slot {
		b := f.bodyOf(f.w.Population.Items[slot[i].Item].Publisher)
		b.data = f.lines.appendAnswer(b.data, &slot[i])
		b.rows++
	}
}

// bodyOf returns the body that the publisher's next line goes to.
func (f *feed) bodyOf(publisher int) *body {
	at := f.current[publisher]
	if at >= 0 && f.bodies[at].rows < f.bodyRows {
		return &f.bodies[at]
	}
	var data []byte
	if n := len(f.spare); n > 0 {
		data, f.spare = f.spare[n-1], f.spare[:n-1]
	}
	f.current[publisher] = len(f.bodies)
	f.bodies = append(f.bodies, body{publisher: publisher, data: data})
	return &f.bodies[len(f.bodies)-1]
}

// testResultBodies renders test results as bodies of at most bodyRows lines.
func testResultBodies(lines *lineWriter, results []TestResult, bodyRows int) []body {
	var bodies []body
	for len(results) > 0 {
		n := min(bodyRows, len(results))
		p := lines.p
		b := body{publisher: p.Schools[p.Learners[results[0].Learner].School].Tests, rows: n}
		for i := range results[:n] {
			b.data = lines.appendTestResult(b.data, &results[i])
		}
		bodies = append(bodies, b)
		results = results[n:]
	}
	return bodies
}
