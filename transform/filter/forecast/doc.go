// Package forecast predicts whether an answer will be right, from everything that
// the answers before it tell.
//
// Four experts predict, the last two each on top of the filter:
//
//	filter   skill and difficulty alone (package filter)
//	quick    the same with skills that move ten times as fast, for learners who
//	         change, or a log in which they come back as others
//	head     plus the logistic head: recent successes, practice, time since
//	full     plus contexts: small Gaussian corrections for situations that come
//	         back, like this item after that one, or the third try at this goal;
//	         and a head that weighs each kind of context, item and goal,
//	         and response times where they are known
//
// and a Bayesian mixture weighs them by how well they have predicted so far, so
// that a richer expert counts only where the data carry it. Contexts correct
// predictions only: skills and difficulties are those of the filter and do not
// depend on them.
//
// A Model learns from one sequence of answers and is a pure function of it: no
// clock, no random numbers, no order of a map, no fused arithmetic. Its memory is
// bounded by Limit per table. It is not safe for concurrent use.
package forecast
