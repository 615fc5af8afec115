package filter

import (
	"errors"
	"math"
)

// Link carries values of one scale version over to another: to = Slope·from +
// Shift.
type Link struct {
	Slope float64
	Shift float64
	Error float64 // standard error of Shift, logits
	Items int     // that both scales have in common
}

// Apply carries a skill or a difficulty over.
func (l Link) Apply(g Gaussian) Gaussian {
	return Gaussian{Mean: l.Shift + float64(l.Slope*g.Mean), Variance: float64(l.Slope * l.Slope * g.Variance)}
}

// LinkScales returns the constants that carry scale `from` over to scale `to`,
// from the difficulties of the items that both have, in the same order: mean and
// sigma linking, where each item counts by its precision on both scales. With
// fixedSlope, or fewer than three items, only the zero is linked.
func LinkScales(from, to []Gaussian, fixedSlope bool) (Link, error) {
	if len(from) != len(to) || len(from) == 0 {
		return Link{}, errors.New("link scales: want the same items, at least one")
	}
	var sum, fromMean, toMean float64
	weight := make([]float64, len(from))
	for i := range from {
		v := from[i].Variance + to[i].Variance
		if !(v > 0) {
			return Link{}, errors.New("link scales: want variances above 0")
		}
		weight[i] = 1 / v
		sum += weight[i]
		fromMean += float64(from[i].Mean / v)
		toMean += float64(to[i].Mean / v)
	}
	fromMean /= sum
	toMean /= sum
	var fromSpread, toSpread float64
	for i, w := range weight {
		// The spread of the true difficulties: errors are taken off.
		a, b := from[i].Mean-fromMean, to[i].Mean-toMean
		fromSpread += float64(w * (float64(a*a) - from[i].Variance))
		toSpread += float64(w * (float64(b*b) - to[i].Variance))
	}
	l := Link{Slope: 1, Items: len(from), Error: math.Sqrt(1 / sum)}
	if !fixedSlope && len(from) >= 3 && fromSpread > 0 && toSpread > 0 {
		l.Slope = math.Sqrt(toSpread / fromSpread)
	}
	l.Shift = toMean - float64(l.Slope*fromMean)
	return l, nil
}
