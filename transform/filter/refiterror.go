package filter

import "math"

// denseItems is the number of items up to which the errors of difficulties take
// all their correlations into account: above, the memory and time of the inverse
// (items² and items³) are not worth the small difference.
const denseItems = 500

// errors sets the variances of the difficulties. The joint information of
// difficulties and skills is [D_u+1/v_θ, -W; -W', D_i+1/v_b] with W the expected
// curvature of each answer; that of the difficulties alone is its Schur
// complement S.
func (f *refit) errors() {
	if len(f.scale.Difficulty) > denseItems {
		f.diagonalErrors()
		return
	}
	n := len(f.scale.Difficulty)
	schur := make([]float64, n*n)
	f.eachLearner(func(answers []Response, w []float64, total float64) {
		for j, r := range answers {
			a := f.scale.Slope[r.Item]
			schur[int(r.Item)*n+int(r.Item)] += float64(a * a * w[j])
			for k, o := range answers {
				b := f.scale.Slope[o.Item]
				schur[int(r.Item)*n+int(o.Item)] -= float64(a * a * w[j] * b * b * w[k] / total)
			}
		}
	})
	for i := range n {
		schur[i*n+i] += 1 / f.scale.Items.Variance
	}
	invert(schur, n)
	f.fromInverse(schur, n)
}

// fromInverse reads the variances, with and without the common shift.
func (f *refit) fromInverse(inverse []float64, n int) {
	row := make([]float64, n)
	var all float64
	for i := range n {
		for j := range n {
			row[i] += inverse[i*n+j]
		}
		all += row[i]
	}
	for i := range n {
		v := inverse[i*n+i]
		f.scale.Difficulty[i].Variance = v
		f.scale.Relative[i] = v - float64(2*row[i]/float64(n)) + all/float64(n)/float64(n)
	}
}

// diagonalErrors inverts only the diagonal of S.
func (f *refit) diagonalErrors() {
	own := make([]float64, len(f.scale.Difficulty))
	f.eachLearner(func(answers []Response, w []float64, total float64) {
		for j, r := range answers {
			a := f.scale.Slope[r.Item]
			h := float64(a * a * w[j])
			own[r.Item] += h - float64(h*h/total)
		}
	})
	for i, h := range own {
		v := 1 / (h + 1/f.scale.Items.Variance)
		f.scale.Difficulty[i].Variance = v
		f.scale.Relative[i] = v
	}
}

// eachLearner visits the learners with the expected curvature p(1-p) of each of
// their answers, and their total information, prior included.
func (f *refit) eachLearner(visit func(answers []Response, w []float64, total float64)) {
	var w []float64
	for u := range f.scale.Skill {
		answers := f.log[f.first[u]:f.first[u+1]]
		first, last := f.posterior(answers)
		w = w[:0]
		total := 1 / f.scale.Learners.Variance
		for _, r := range answers {
			a, wrong := f.scale.Slope[r.Item], f.of(f.wrong, int(r.Item))
			var sum float64
			for q := first; q < last; q++ {
				p := Exp(wrong[q]) // P(wrong)
				sum += float64(f.weight[q] * p * (1 - p))
			}
			w = append(w, sum)
			total += float64(a * a * sum)
		}
		visit(answers, w, total)
	}
}

// invert replaces a symmetric positive definite matrix of n rows by its inverse,
// through its Cholesky factor.
func invert(m []float64, n int) {
	for j := range n { // m = L·L'
		for i := j; i < n; i++ {
			sum := m[i*n+j]
			for k := range j {
				sum -= float64(m[i*n+k] * m[j*n+k])
			}
			if i == j {
				m[j*n+j] = math.Sqrt(sum)
			} else {
				m[i*n+j] = sum / m[j*n+j]
			}
		}
	}
	for j := range n { // L becomes its inverse, column by column
		m[j*n+j] = 1 / m[j*n+j]
		for i := j + 1; i < n; i++ {
			var sum float64
			for k := j; k < i; k++ {
				sum -= float64(m[i*n+k] * m[k*n+j])
			}
			m[i*n+j] = sum / m[i*n+i]
		}
	}
	for i := range n { // inverse = L'⁻¹·L⁻¹, into the upper half
		for j := i; j < n; j++ {
			var sum float64
			for k := j; k < n; k++ {
				sum += float64(m[k*n+i] * m[k*n+j])
			}
			m[i*n+j] = sum
		}
	}
	for i := range n {
		for j := range i {
			m[i*n+j] = m[j*n+i]
		}
	}
}
