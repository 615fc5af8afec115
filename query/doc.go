// Package query answers questions of adaptive engines, schools and analysts:
// the next exercise, percentiles, difficulties, pseudonyms.
//
// Everything that is asked while a pupil waits is answered from memory. The
// read model loads the newest checkpoint of every partition and then follows
// the topics `skills` and `items`:
//
//	store ──checkpoint──▶ ReadModel ◀──tail── [skills], [items]
//	                         │
//	     Selector, Norms ────┴──▶ Handler (net/http)
//
// Invariants:
//   - Messages carry absolute states with the log position that they reflect.
//     An older state never overwrites a newer one, so loading and following may
//     overlap and a message may arrive twice.
//   - No identifier is kept, logged or returned. Tokens of a caller are mapped
//     by the pseudonymize package; what a caller may not see is answered as if
//     it did not exist, in the same shape.
//   - A figure about fewer than MinGroup learners is never given.
//   - Every request is bounded: its body, its reply and its work.
//
// Words: the skill of a goal is the sum of the means of the learner's layers
// overall, subject and goal, in logits; its variance is the sum of theirs. The
// difficulty of an exercise is the sum of its item, goal and global components. Norm group: the learners of one year group.
package query
