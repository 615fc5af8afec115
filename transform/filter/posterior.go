package filter

// Estimate is one layer of a learner, for SkillVariances.
type Estimate struct {
	Layer    int     // LayerOverall, LayerSubject or LayerGoal
	Subject  int     // of a goal: index of its subject among the estimates, -1 = none
	Variance float64 // of this layer alone, drifted to the moment that is asked for
	Answers  uint32  // that moved the layer
	AgeMs    int64   // since the layer's last answer, at that moment

	// Skill is filled in: the error variance of the skill that the layer stands for,
	// which is the sum of it and the wider ones.
	Skill float64
	// Spread is filled in: the variance that the skill leaves to be added to the
	// variance of the estimates, so that together they are that of the true skills of
	// a population. It is below Skill where the estimate scatters more than it should.
	Spread float64

	told    float64 // information about the skill at this width: own and from below
	upwards float64 // what of it reaches the layer above
	then    float64 // of a goal: what its subject was told by the goal's last answer
	ageMs   int64   // of a subject: moment that told stands for
	order   int32   // the goals from the oldest to the youngest: place of the n-th
	direct  uint32  // answers that name nothing narrower
}

// typicalInformation is what an answer says about a skill when three of four are
// right, p(1-p), less what the uncertainty of the exercise takes away.
const typicalInformation = 0.18

// SkillVariances fills in Skill and Spread of all layers of one learner.
//
// The filter keeps a variance per layer and leaves out the covariances, which are
// negative: what an answer shows is a sum, and when one layer lies higher than
// thought, the others lie lower. The sum of the variances is therefore too large
// for a goal, and that of overall, which is never seen without a subject and a
// goal on top, too small. Here the covariances are put back: the layers are a tree
// of Gaussians whose leaves were observed with some information J, and its
// marginals are exact after one pass up and one down. With prior variances o, s
// and g of the layers
//
//	goal      told λ = J, passes on λ/(1+g·λ)
//	subject   told Λ = J + those of its goals, passes on Λ/(1+s·Λ)
//	overall   told M = J + Σ of the subjects; variance 1/(1/o+M)
//	downwards the variance of a child is 1/(told + 1/(prior + v)), where v is the
//	          variance of its parent without what the child passed on
//
// J of a goal comes from its own variance: an answer of information h adds
// h/(1+h·rest) to the precision of the goal, where rest is the variance of the
// layers above. Drift of the goal is in it, for it widens the goal. The layers
// above drift for all goals alike, so a subject is told of its goals one after the
// other, the oldest first, and what it was told fades from one to the next. Answers
// that name no goal count by their number.
func (p *Parameters) SkillVariances(estimates []Estimate) {
	overall := -1
	var above float64 // variance of overall
	for i := range estimates {
		e := &estimates[i]
		e.told, e.upwards, e.then, e.direct = 0, 0, 0, e.Answers
		if e.Layer == LayerOverall {
			overall, above = i, e.Variance
		}
	}
	age := p.ageOf(estimates, overall)
	told := p.tellGoals(estimates, above, age)
	for i := range estimates {
		e := &estimates[i]
		if e.Layer != LayerSubject {
			continue
		}
		if overall >= 0 {
			estimates[overall].direct -= min(e.Answers, estimates[overall].direct)
		}
		e.told += float64(float64(e.direct) * typicalInformation)
		e.upwards = e.told / (1 + float64(p.Learner[LayerSubject].Variance*e.told))
		told += e.upwards
	}
	if overall >= 0 {
		told += float64(float64(estimates[overall].direct) * typicalInformation)
	}
	top := 1/p.Learner[LayerOverall].Variance + told
	p.descend(estimates, top)
	p.widen(estimates, overall, age)
	p.stretch(estimates, overall)
}

// ageing is how much the layers above the goals have drifted since some time ago.
type ageing struct {
	perMs  float64 // since the learner's last answer
	during float64 // while the learner was answering, per ms
	lastMs int64   // age of the learner's last answer
}

func (a ageing) since(ageMs int64) float64 {
	return float64(float64(max(0, ageMs))*a.perMs) + float64(float64(max(0, ageMs-a.lastMs))*a.during)
}

// ageOf estimates the ageing of a learner's evidence. Drift per answer needs the
// number of answers since; how they lie in time is taken from the goals: with k
// goals practised one after the other, the time from the end of the first to the
// end of the last is (k-1)/k of the whole.
func (p *Parameters) ageOf(estimates []Estimate, overall int) (a ageing) {
	if overall < 0 {
		return a
	}
	o, s := &p.Learner[LayerOverall], &p.Learner[LayerSubject]
	a.perMs = (o.DriftPerDay + s.DriftPerDay) / MillisecondsPerDay
	a.lastMs = max(0, estimates[overall].AgeMs)
	goals, oldest := 0, a.lastMs
	for i := range estimates {
		if e := &estimates[i]; e.Layer == LayerGoal {
			goals++
			oldest = max(oldest, e.AgeMs)
		}
	}
	if span := float64(oldest - a.lastMs); goals > 1 && span > 0 {
		perMs := float64(estimates[overall].Answers) * float64(goals-1) / (float64(goals) * span)
		a.during = float64(perMs * (o.DriftPerAnswer + s.DriftPerAnswer))
	}
	return a
}

// tellGoals tells the subjects of their goals, and returns what the goals without a
// subject tell overall.
func (p *Parameters) tellGoals(estimates []Estimate, above float64, age ageing) float64 {
	none := Estimate{}
	prior := p.Learner[LayerGoal].Variance
	goals := orderGoals(estimates)
	for n := range goals {
		e := &estimates[estimates[n].order]
		subject, rest := &none, above
		if e.Subject >= 0 {
			subject = &estimates[e.Subject]
			rest += subject.Variance
		}
		if e.Variance > 0 && prior > 0 {
			gained := max(0, 1/e.Variance-1/prior)
			e.told = float64(gained * (1 + float64(typicalInformation*rest)))
		}
		subject.told = p.fade(subject, age.since(subject.ageMs)-age.since(e.AgeMs))
		subject.told += e.told / (1 + float64(prior*e.told))
		subject.ageMs, e.then = e.AgeMs, subject.told
		for k := n - 1; k >= 0 && estimates[estimates[k].order].AgeMs == e.AgeMs; k-- {
			if o := &estimates[estimates[k].order]; o.Subject == e.Subject {
				o.then = subject.told
			}
		}
		subject.direct -= min(e.Answers, subject.direct)
		e.told /= 1 + float64(e.told*age.since(e.AgeMs))
		e.upwards = e.told / (1 + float64(prior*e.told))
		subject.upwards += e.upwards
	}
	none.told = p.fade(&none, age.since(none.ageMs))
	for i := range estimates {
		if e := &estimates[i]; e.Layer == LayerSubject {
			e.told = p.fade(e, age.since(e.ageMs))
		}
	}
	// What a goal has passed on is its share of what is left.
	for i := range estimates {
		e := &estimates[i]
		if e.Layer != LayerGoal || !(e.upwards > 0) {
			continue
		}
		subject := &none
		if e.Subject >= 0 {
			subject = &estimates[e.Subject]
		}
		e.upwards = float64(e.upwards * subject.told / subject.upwards)
	}
	return none.told
}

// orderGoals lays down the order of the goals by the age of their last answers, and
// returns their number. Layers are listed as they were met, so that few are out of
// order; how those of one age are listed does not matter.
func orderGoals(estimates []Estimate) (goals int) {
	for i := range estimates {
		e := &estimates[i]
		e.ageMs = 0
		if e.Layer != LayerGoal {
			continue
		}
		n := goals
		for n > 0 && e.before(&estimates[estimates[n-1].order]) {
			estimates[n].order = estimates[n-1].order
			n--
		}
		estimates[n].order = int32(i)
		goals++
	}
	return goals
}

// before tells whether a goal comes before another in the order of orderGoals.
func (e *Estimate) before(o *Estimate) bool {
	switch {
	case e.AgeMs != o.AgeMs:
		return e.AgeMs > o.AgeMs
	case e.Variance != o.Variance:
		return e.Variance > o.Variance
	}
	return e.Answers < o.Answers
}

// fade returns what a subject (or overall, without one) is still told after it has
// wandered by a variance; see Drift.
func (p *Parameters) fade(told *Estimate, wander float64) float64 {
	if !(told.told > 0) || !(wander > 0) {
		return told.told
	}
	prior := p.above(told)
	return 1 / ((1+wander/prior)/told.told + wander)
}

// above returns the variance of all layers down to that of an estimate, before the
// first answer. The zero Estimate is overall.
func (p *Parameters) above(e *Estimate) float64 {
	prior := p.Learner[LayerOverall].Variance
	if e.Layer == LayerSubject {
		prior += p.Learner[LayerSubject].Variance
	}
	return prior
}

// descend fills in the variances, given the precision of overall.
func (p *Parameters) descend(estimates []Estimate, top float64) {
	for i := range estimates {
		e := &estimates[i]
		switch {
		case e.Layer == LayerOverall:
			e.Skill = 1 / top
		case e.Layer == LayerSubject || e.Subject < 0:
			e.Skill = 1 / (e.told + 1/(p.Learner[e.Layer].Variance+1/(top-e.upwards)))
		}
	}
	for i := range estimates {
		e := &estimates[i]
		if e.Layer != LayerGoal || e.Subject < 0 {
			continue
		}
		without := 1/estimates[e.Subject].Skill - e.upwards
		e.Skill = 1 / (e.told + 1/(p.Learner[LayerGoal].Variance+1/without))
	}
}

// widen adds to the error of goals what the filter does wrong since their last
// answer, and takes it off Spread. What other goals teach about the wider skill
// moves this goal's by as much, though by its own answers a share a = 1 - s/g of it
// is known already (s its variance, g that before the first answer). When the wider
// skill had the variance P then, has wandered by Q since and was moved by the share
// K, the best move is (1 - a·P/(P+Q)) of that. The excess has the variance
//
//	x = K·(a·P)²/(P+Q)
//
// and covaries by x·(P+Q-a·P)/(a·P) with the best estimate.
func (p *Parameters) widen(estimates []Estimate, overall int, age ageing) {
	for i := range estimates {
		e := &estimates[i]
		e.Spread = e.Skill
		wider := e.Subject
		if wider < 0 {
			wider = overall
		}
		if e.Layer != LayerGoal || wider < 0 {
			continue
		}
		now := &estimates[wider]
		before := 1 / (1/p.above(now) + e.then)
		known := float64(before * max(0, 1-e.Variance/p.Learner[LayerGoal].Variance))
		if !(known > 0) {
			continue
		}
		all := before + age.since(e.AgeMs)
		excess := float64(max(0, 1-now.Skill/all) * known * known / all)
		e.Skill += excess
		e.Spread = max(0, e.Spread-excess-float64(2*excess*(all-known)/known))
	}
}

// stretch adds to Spread of overall what its estimate varies too little. A level
// that lasts is shared by the layers that are moved together: drift draws each back
// by q/2c of it per answer, answers move it by s·h of what is left over, and with
// the variance 2·(q/2c)·(c-s) = s²·h at which that settles, the layers hold
//
//	m = 2·(c/s - 1)·r
//
// of a level r + Σm. The best estimate would hold 1 - v/c of it on average, v its
// variance.
func (p *Parameters) stretch(estimates []Estimate, overall int) {
	if overall < 0 {
		return
	}
	var held [Layers]float64
	var layers [Layers]int
	for i := range estimates {
		e := &estimates[i]
		if e.Variance > 0 {
			held[e.Layer] += float64(2 * max(0, p.Learner[e.Layer].Variance/e.Variance-1))
			layers[e.Layer]++
		}
	}
	all := 1.0
	for layer := range held {
		if layers[layer] > 0 {
			held[layer] /= float64(layers[layer])
		}
		all += held[layer]
	}
	e := &estimates[overall]
	prior := p.Learner[LayerOverall].Variance
	best := prior - e.Skill
	if share := float64(held[LayerOverall] / all * prior); share < best {
		e.Spread += best - float64(share*share/best)
	}
}
