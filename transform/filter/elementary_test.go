package filter_test

import (
	"math"
	"math/big"
	"testing"

	"github.com/leerstroom/leerstroom/transform/filter"
	"pgregory.net/rapid"
)

// bigPrecision is far more than the 53 bits that are checked.
const bigPrecision = 160

func bigFloat(x float64) *big.Float { return new(big.Float).SetPrec(bigPrecision).SetFloat64(x) }

// bigExp computes e^x by the series of x/2^40, squared 40 times.
func bigExp(x float64) *big.Float {
	r := new(big.Float).SetPrec(bigPrecision + 60).SetFloat64(x)
	r.SetMantExp(r, -40)
	sum := new(big.Float).SetPrec(bigPrecision + 60).SetInt64(1)
	term := new(big.Float).SetPrec(bigPrecision + 60).SetInt64(1)
	for k := int64(1); k < 30; k++ {
		term.Mul(term, r)
		term.Quo(term, new(big.Float).SetInt64(k))
		sum.Add(sum, term)
	}
	for range 40 {
		sum.Mul(sum, sum)
	}
	return sum
}

// ulps returns the distance of got to want in units in the last place of want.
func ulps(got float64, want *big.Float) float64 {
	w, _ := want.Float64()
	unit := math.Nextafter(math.Abs(w), math.Inf(1)) - math.Abs(w)
	diff := new(big.Float).SetPrec(bigPrecision).Sub(bigFloat(got), want)
	d, _ := diff.Float64()
	return math.Abs(d) / unit
}

func TestExpAgainstBig(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float64Range(-700, 700).Draw(t, "x")
		if d := ulps(filter.Exp(x), bigExp(x)); d > 1 {
			t.Fatalf("Exp(%v) is %.2f units in the last place off", x, d)
		}
	})
}

func TestExpAtTheEdges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ x, want float64 }{
		{0, 1}, {math.Copysign(0, -1), 1}, {1, math.E}, {-800, 0}, {math.Inf(-1), 0}, {math.Inf(1), math.Inf(1)},
		{710, math.Inf(1)}, {1e300, math.Inf(1)}, {math.Ln2, 2},
	} {
		if got := filter.Exp(c.x); got != c.want {
			t.Errorf("Exp(%v) = %v, want %v", c.x, got, c.want)
		}
	}
	if got := filter.Exp(math.NaN()); got == got {
		t.Errorf("Exp(NaN) = %v, want not a number", got)
	}
	for _, x := range []float64{709.7, -740, -745, -708.5} {
		got, want := filter.Exp(x), math.Exp(x)
		if math.Abs(got-want) > 1e-15*want+0x1p-1074 {
			t.Errorf("Exp(%v) = %v, want %v", x, got, want)
		}
	}
}

func TestLogAgainstBig(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := rapid.Float64Range(-700, 700).Draw(t, "log x")
		x := math.Exp(e)
		if rapid.Bool().Draw(t, "near 1") {
			x = 1 + e/1000
		}
		// One Newton step from the result in high precision: y + (x-e^y)/e^y.
		got := filter.Log(x)
		ey := bigExp(got)
		want := new(big.Float).SetPrec(bigPrecision).Sub(bigFloat(x), ey)
		want.Quo(want, ey)
		want.Add(want, bigFloat(got))
		if x != 1 && ulps(got, want) > 1 {
			t.Fatalf("Log(%v) is %.2f units in the last place off", x, ulps(got, want))
		}
	})
}

func TestLogAtTheEdges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ x, want float64 }{
		{1, 0}, {0, math.Inf(-1)}, {math.Inf(1), math.Inf(1)}, {2, math.Ln2}, {math.E, 1},
		{math.MaxFloat64, 709.782712893384}, {5e-324, -744.4400719213812},
	} {
		if got := filter.Log(c.x); got != c.want {
			t.Errorf("Log(%v) = %v, want %v", c.x, got, c.want)
		}
	}
	if got := filter.Log(-1); got == got {
		t.Errorf("Log(-1) = %v, want not a number", got)
	}
}

func TestLog1pAndSigmoidInvert(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float64Range(-0.9, 1e6).Draw(t, "x")
		if got, want := filter.Log1p(x), math.Log1p(x); math.Abs(got-want) > 5e-16*math.Abs(want) {
			t.Fatalf("Log1p(%v) = %v, want %v", x, got, want)
		}
		z := rapid.Float64Range(-30, 30).Draw(t, "z")
		p := filter.Sigmoid(z)
		if got := p + filter.Sigmoid(-z); math.Abs(got-1) > 2.3e-16 {
			t.Fatalf("Sigmoid(%v) + Sigmoid(%v) = %v, want 1", z, -z, got)
		}
		if z < 5 {
			if got := filter.Logit(p); math.Abs(got-z) > 1e-13*(1+math.Abs(z)) {
				t.Fatalf("Logit(Sigmoid(%v)) = %v", z, got)
			}
		}
	})
}

func TestPhiKnownAnswers(t *testing.T) {
	t.Parallel()
	// Φ(x) to 17 digits, computed with 40 digits.
	for _, c := range []struct{ x, want float64 }{
		{0, 0.5}, {1, 0.84134474606854295}, {-1, 0.15865525393145705}, {1.6448536269514722, 0.95},
		{1.959963984540054, 0.975}, {-3, 0.0013498980316300945}, {-6, 9.8658764503769814e-10},
		{-10, 7.6198530241605261e-24}, {-37, 5.7255712225245768e-300}, {8.3, 1}, {-40, 0},
	} {
		got := filter.Phi(c.x)
		if math.Abs(got-c.want) > 4e-16 || math.Abs(got-c.want) > 1e-13*c.want {
			t.Errorf("Phi(%v) = %v, want %v", c.x, got, c.want)
		}
	}
}

func TestPhiAgainstErfc(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float64Range(-30, 9).Draw(t, "x")
		got, want := filter.Phi(x), 0.5*math.Erfc(-x/math.Sqrt2)
		if math.Abs(got-want) > 2e-13*want {
			t.Fatalf("Phi(%v) = %v, want %v", x, got, want)
		}
	})
}

func TestPhiInverse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float64Range(-36, 5).Draw(t, "x")
		if got := filter.PhiInverse(filter.Phi(x)); math.Abs(got-x) > 1e-9 || (x < 1 && math.Abs(got-x) > 1e-13*(1+math.Abs(x))) {
			t.Fatalf("PhiInverse(Phi(%v)) = %v", x, got)
		}
	})
	for _, c := range []struct{ p, want float64 }{{0.5, 0}, {0, math.Inf(-1)}, {1, math.Inf(1)}, {0.975, 1.9599639845400542}} {
		if got := filter.PhiInverse(c.p); got != c.want && math.Abs(got-c.want) > 1e-15 {
			t.Errorf("PhiInverse(%v) = %v, want %v", c.p, got, c.want)
		}
	}
	for _, p := range []float64{-1, 2, math.NaN()} {
		if got := filter.PhiInverse(p); got == got {
			t.Errorf("PhiInverse(%v) = %v, want not a number", p, got)
		}
	}
}
