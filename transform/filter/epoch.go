package filter

import "math"

// Unit is the fixed-point unit of contributions: 2^-32.
const Unit = 0x1p-32

// Contribution is what one answer, or the sum of many, says about one shared
// component, in units of 2^-32. Contributions are added and subtracted as
// integers, in any order, to the same bits.
//
// One answer at the default discrimination gives a gradient within ±2^32 and an
// information within 2^30 (at most 2^34 and 2^34 at MaxDiscrimination). A sum of
// less than 2^31 answers therefore cannot overflow. Sums beyond wrap around, and
// stay right as long as only differences of less than 2^31 answers are reduced.
type Contribution struct {
	Gradient    int64
	Information int64
}

// Add returns the sum of two contributions.
func (c Contribution) Add(o Contribution) Contribution {
	return Contribution{c.Gradient + o.Gradient, c.Information + o.Information}
}

// Sub returns what c holds more than o.
func (c Contribution) Sub(o Contribution) Contribution {
	return Contribution{c.Gradient - o.Gradient, c.Information - o.Information}
}

// Contributions are what one answer says about the three shared components.
type Contributions [Components]Contribution

// Contribute returns what an answer says about the shared components that it was
// predicted from, which stand still during an epoch. A component of variance 0
// that does not apply gets numbers too; nobody has to keep them.
//
// With r = 1 + h(v-s), the part of the uncertainty that is not the component's
// own, they are g·e/r and h/r: for one answer, Reduce then gives exactly the
// Gaussian that Shared.Update gives, up to the rounding to 2^-32.
func (s *Shared) Contribute(p *Prediction, score float64) Contributions {
	var c Contributions
	e := p.gradient(score)
	for i := range s {
		r := 1 / (1 + float64(p.h*(p.V-s[i].Variance)))
		c[i] = Contribution{
			Gradient:    fixed(sharedSign[i] * e * r),
			Information: fixed(p.h * r),
		}
	}
	return c
}

// fixed rounds to the nearest multiple of Unit.
func fixed(x float64) int64 { return int64(math.RoundToEven(x * 0x1p32)) }

// Reduce returns a shared component after an epoch in which answers said c about
// it. The mean moves by at most MaxStep.
func (p *Parameters) Reduce(g Gaussian, c Contribution) Gaussian {
	if g.Variance <= 0 || c.Information <= 0 {
		return g // certain, or nothing said
	}
	precision := 1/g.Variance + float64(float64(c.Information)*Unit)
	step := float64(float64(c.Gradient) * Unit / precision)
	g.Mean += max(-p.MaxStep, min(p.MaxStep, step))
	g.Variance = 1 / precision
	return g
}
