package filter

// Estimate is one layer of a learner, for SkillVariances.
type Estimate struct {
	Layer    int     // LayerOverall, LayerSubject or LayerGoal
	Subject  int     // of a goal: index of its subject among the estimates, -1 = none
	Variance float64 // of this layer alone, drifted to the moment that is asked for
	Answers  uint32  // that moved the layer
	AgeMs    int64   // since the layer's last answer, at that moment

	// Skill is filled in: the variance of the skill that the layer stands for,
	// which is the sum of it and the wider ones.
	Skill float64

	told    float64 // information about the skill at this width: own and from below
	upwards float64 // what of it reaches the layer above
	direct  uint32  // answers that name nothing narrower
}

// typicalInformation is what an answer says about a skill when three of four are
// right, p(1-p), less what the uncertainty of the exercise takes away.
const typicalInformation = 0.18

// SkillVariances fills in Skill of all layers of one learner.
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
//	subject   told Λ = J + Σ of its goals, passes on Λ/(1+s·Λ)
//	overall   told M = J + Σ of the subjects; variance 1/(1/o+M)
//	downwards the variance of a child is 1/(told + 1/(prior + v)), where v is the
//	          variance of its parent without what the child passed on
//
// J of a goal comes from its own variance: an answer of information h adds
// h/(1+h·rest) to the precision of the goal, where rest is the variance of the
// layers above. Drift is in it, for it widens the goal. Answers that name no goal
// count by their number.
func (p *Parameters) SkillVariances(estimates []Estimate) {
	overall := -1
	var above float64 // variance of overall
	for i := range estimates {
		e := &estimates[i]
		e.told, e.upwards, e.direct = 0, 0, e.Answers
		if e.Layer == LayerOverall {
			overall, above = i, e.Variance
		}
	}
	told := p.tellGoals(estimates, above, p.ageOf(estimates, overall))
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

// tellGoals gathers what goals tell their subjects, and returns what those
// without a subject tell overall.
func (p *Parameters) tellGoals(estimates []Estimate, above float64, age ageing) (told float64) {
	prior := p.Learner[LayerGoal].Variance
	for i := range estimates {
		e := &estimates[i]
		if e.Layer != LayerGoal || !(e.Variance > 0) || !(prior > 0) {
			continue
		}
		rest := above
		if e.Subject >= 0 {
			rest += estimates[e.Subject].Variance
		}
		gained := max(0, 1/e.Variance-1/prior)
		e.told = float64(gained * (1 + float64(typicalInformation*rest)))
		e.told /= 1 + float64(e.told*age.since(e.AgeMs))
		e.upwards = e.told / (1 + float64(prior*e.told))
		if e.Subject < 0 {
			told += e.upwards
			continue
		}
		subject := &estimates[e.Subject]
		subject.told += e.upwards
		subject.direct -= min(e.Answers, subject.direct)
	}
	return told
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
