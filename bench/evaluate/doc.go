// Package evaluate measures how well Leerstroom and simpler systems predict
// answers, rank items and rank learners, on a file of real answers or on a
// simulated school.
//
// Every system predicts each answer before it sees it, then learns from it; only
// past answers are ever used, and no constant depends on the data set. The
// systems are, by their key in the JSON report:
//
//	leerstroom  package transform/filter/forecast; for difficulty and skill the
//	            refit of package transform/filter
//	elo_1_05    Elo with the gain 1/(1+.05n)
//	elo_04      Elo with the gain .4
//	elo_tree    hierarchical Elo, overall and per skill
//	item_mean   running share of right answers of the item
//
// Names in the files are used as keys only; no report, plot or error holds one.
package evaluate
