package filter

import "math"

// The constants of Exp: x = k·ln2/32 + r with |r| <= ln2/64, and ln2/32 in two
// parts of which the first has so few bits that k times it is exact.
const (
	expInverseStep = 0x1.71547652b82fep+05
	expStepHigh    = 0x1.62e42fee00000p-6
	expStepLow     = 0x1.a39ef35793c76p-38
	roundShift     = 0x1.8p52 // adding and subtracting it rounds to the nearest integer
)

// exp2Table holds 2^(j/32), correctly rounded.
var exp2Table = [32]float64{
	0x1.0000000000000p+00, 0x1.059b0d3158574p+00, 0x1.0b5586cf9890fp+00, 0x1.11301d0125b51p+00,
	0x1.172b83c7d517bp+00, 0x1.1d4873168b9aap+00, 0x1.2387a6e756238p+00, 0x1.29e9df51fdee1p+00,
	0x1.306fe0a31b715p+00, 0x1.371a7373aa9cbp+00, 0x1.3dea64c123422p+00, 0x1.44e086061892dp+00,
	0x1.4bfdad5362a27p+00, 0x1.5342b569d4f82p+00, 0x1.5ab07dd485429p+00, 0x1.6247eb03a5585p+00,
	0x1.6a09e667f3bcdp+00, 0x1.71f75e8ec5f74p+00, 0x1.7a11473eb0187p+00, 0x1.82589994cce13p+00,
	0x1.8ace5422aa0dbp+00, 0x1.93737b0cdc5e5p+00, 0x1.9c49182a3f090p+00, 0x1.a5503b23e255dp+00,
	0x1.ae89f995ad3adp+00, 0x1.b7f76f2fb5e47p+00, 0x1.c199bdd85529cp+00, 0x1.cb720dcef9069p+00,
	0x1.d5818dcfba487p+00, 0x1.dfc97337b9b5fp+00, 0x1.ea4afa2a490dap+00, 0x1.f50765b6e4540p+00,
}

// Exp returns e^x, within 1 unit in the last place where the result is normal.
func Exp(x float64) float64 {
	switch {
	case x != x:
		return x
	case x > 709.782712893384:
		return math.Inf(1)
	case x < -745.1332191019412:
		return 0
	}
	shifted := float64(x*expInverseStep) + roundShift
	kf := shifted - roundShift
	k := int(kf)
	r := (x - float64(kf*expStepHigh)) - float64(kf*expStepLow)
	// e^r - 1 by its series; the first term left out is below 2^-57.
	q := 1.0/120 + float64(r*(1.0/720))
	q = 1.0/24 + float64(r*q)
	q = 1.0/6 + float64(r*q)
	q = 0.5 + float64(r*q)
	q = r + float64(float64(r*r)*q)
	t := exp2Table[k&31]
	y := t + float64(t*q)
	return scale(y, k>>5)
}

// scale returns y·2^n for y in [1/2, 2] and n in [-1075, 1024], in two exact
// steps so that neither overflows.
func scale(y float64, n int) float64 {
	if n >= -1021 && n <= 1022 {
		return float64(y * math.Float64frombits(uint64(n+1023)<<52))
	}
	half := n / 2
	return float64(y * math.Float64frombits(uint64(half+1023)<<52) * math.Float64frombits(uint64(n-half+1023)<<52))
}

// ln2 in two parts; a whole number up to 2^11 times the first is exact.
const (
	ln2High = 0x1.62e42fefa3000p-1
	ln2Low  = 0x1.3de6af278ece6p-42
)

// Log returns the natural logarithm of x, within 1 unit in the last place: -Inf
// for 0, not a number below.
func Log(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case x > math.MaxFloat64:
		return x
	}
	m, e := frexp(x)
	f := m - 1
	// log(1+f) = f - (f²/2 - s(f²/2 + R)), s = f/(2+f), R = Σ 2s^2k/(2k+1).
	s := f / (2 + f)
	w := float64(s * s)
	r := 2.0/21 + float64(w*(2.0/23))
	r = 2.0/19 + float64(w*r)
	r = 2.0/17 + float64(w*r)
	r = 2.0/15 + float64(w*r)
	r = 2.0/13 + float64(w*r)
	r = 2.0/11 + float64(w*r)
	r = 2.0/9 + float64(w*r)
	r = 2.0/7 + float64(w*r)
	r = 2.0/5 + float64(w*r)
	r = 2.0/3 + float64(w*r)
	r = float64(w * r)
	half := float64(0.5 * f * f)
	k := float64(e)
	return float64(k*ln2High) - ((half - (float64(s*(half+r)) + float64(k*ln2Low))) - f)
}

// frexp splits a positive finite x in m·2^e with m in [√½, √2).
func frexp(x float64) (m float64, e int) {
	if x < 0x1p-1022 {
		x *= 0x1p54
		e = -54
	}
	bits := math.Float64bits(x)
	e += int(bits>>52) - 1023
	m = math.Float64frombits(bits&(1<<52-1) | 1023<<52)
	if m >= math.Sqrt2 {
		return m / 2, e + 1
	}
	return m, e
}

// Log1p returns log(1+x), accurate for small x too.
func Log1p(x float64) float64 {
	u := 1 + x
	if u == 1 || u > math.MaxFloat64 {
		return x
	}
	// The rounding error of 1+x cancels in the quotient.
	return Log(u) * x / (u - 1)
}

// Sigmoid returns 1/(1+e^-x).
func Sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + Exp(-x))
	}
	e := Exp(x)
	return e / (1 + e)
}

// Logit returns log(p/(1-p)), the inverse of Sigmoid.
func Logit(p float64) float64 { return Log(p / (1 - p)) }
