package forecast

// switchRate is the chance, per answer, that another expert becomes the best one:
// it keeps every weight above zero, so that a late bloomer can take over.
const switchRate = 0.0001

// mixture weighs the experts by their past likelihood. Its log-loss exceeds that
// of the best expert by no more than log(4) in all, apart from switching.
type mixture struct {
	weight [experts]float64
}

// experts is the number of experts.
const experts = 4

func newMixture() mixture {
	var m mixture
	for i := range m.weight {
		m.weight[i] = 1.0 / experts
	}
	return m
}

func (f *Forecast) experts() [experts]float64 {
	return [experts]float64{f.Filter, f.Quick, f.Head, f.Full}
}

func (m *mixture) predict(f *Forecast) float64 {
	var p float64
	for i, x := range f.experts() {
		p += float64(m.weight[i] * x)
	}
	return p
}

func (m *mixture) learn(f *Forecast, score float64) {
	var sum float64
	for i, x := range f.experts() {
		likelihood := float64(score*x) + float64((1-score)*(1-x))
		m.weight[i] = float64(m.weight[i] * max(likelihood, 1e-6))
		sum += m.weight[i]
	}
	for i := range m.weight {
		m.weight[i] = float64((1-switchRate)*m.weight[i]/sum) + switchRate/experts
	}
}
