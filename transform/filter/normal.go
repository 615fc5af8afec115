package filter

import "math"

// millsScale is where half of the range of millsSeries lies: t = 5/(5+x).
const millsScale = 5

// millsSeries are the Chebyshev coefficients on t in [0, 1] of M(x)/t, where
// M(x) = Φ(-x)/φ(x) is the Mills ratio. What is left out is below 1e-17.
var millsSeries = [...]float64{
	0.5439370477535649,
	0.47381352113017583,
	0.17022152903825802,
	0.0505342020403798,
	0.012203077280981408,
	0.0022951028146112355,
	0.00029892217931239227,
	1.5057101680862836e-05,
	-3.4883281972377065e-06,
	-8.330138752920853e-07,
	-2.150983482230872e-08,
	1.8942452851101842e-08,
	2.3344506883308793e-09,
	-3.643293447805605e-10,
	-9.405225007271757e-11,
	6.7921982806943314e-12,
	3.386372277525619e-12,
	-1.4232522466853383e-13,
	-1.2385256535612504e-13,
	4.534506363989648e-15,
	4.738109212679932e-15,
	-2.418857218381293e-16,
	-1.877613827389405e-16,
	1.5911343040099946e-17,
	7.452024095440895e-18,
	-1.0516013195858887e-18,
}

// inverseSqrt2Pi is 1/√(2π), the density of the normal distribution at 0.
const inverseSqrt2Pi = 0.3989422804014327

// Phi returns the standard normal distribution function at x. The error is
// below 4e-16, and relatively below 1e-13 down to Φ(-37).
func Phi(x float64) float64 {
	if x > 0 {
		return 1 - upperTail(x)
	}
	return upperTail(-x)
}

// upperTail returns 1-Φ(x) for x >= 0.
func upperTail(x float64) float64 {
	if x != x {
		return x
	}
	if x > 38.5 {
		return 0
	}
	t := millsScale / (millsScale + x)
	u := float64(2*t) - 1
	twice := float64(2 * u)
	var b1, b2 float64 // Clenshaw's recurrence
	for j := len(millsSeries) - 1; j > 0; j-- {
		b1, b2 = float64(twice*b1)-b2+millsSeries[j], b1
	}
	mills := t * (float64(u*b1) - b2 + millsSeries[0])
	return float64(mills * density(x))
}

// density returns the standard normal density at x.
func density(x float64) float64 { return float64(inverseSqrt2Pi * Exp(-0.5*x*x)) }

// PhiInverse returns the x of which Phi(x) is p: -Inf for 0, +Inf for 1, not a
// number outside [0, 1].
func PhiInverse(p float64) float64 {
	switch {
	case !(p >= 0 && p <= 1):
		return math.NaN()
	case p == 0:
		return math.Inf(-1)
	case p == 1:
		return math.Inf(1)
	case p > 0.5:
		return quantileOfTail(1 - p)
	}
	return -quantileOfTail(p)
}

// quantileOfTail returns the x >= 0 with upperTail(x) = q, 0 < q <= 1/2.
func quantileOfTail(q float64) float64 {
	// First guess: Hastings' rational approximation (error < 4.5e-4).
	t := math.Sqrt(-2 * Log(q))
	numerator := 2.515517 + float64(t*(0.802853+float64(t*0.010328)))
	denominator := 1 + float64(t*(1.432788+float64(t*(0.189269+float64(t*0.001308)))))
	x := t - numerator/denominator
	if x < 0 {
		x = 0
	}
	for range 2 { // Halley's method triples the digits
		d := density(x)
		if d == 0 {
			break
		}
		step := (upperTail(x) - q) / d
		x += step / (1 - float64(0.5*x*step))
	}
	return x
}
