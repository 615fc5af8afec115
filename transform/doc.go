// Package transform turns answers into skills, difficulties and norms.
//
// A partition is a pure function of its own log and of the item snapshots that
// it adopted at recorded positions. It uses no clock, no random numbers and no
// order of a map; what is summed over partitions is summed as integers. The same
// log with the same adoptions gives the same bits, whatever the number of
// workers, the batches and the crashes.
//
//	answers ─▶ Stage ─▶ Partition.Apply ─▶ skills
//	             ▲          │ sums
//	             │          ▼
//	          items ◀─ Reducer ◀─ item-sums
//
// A refit of the archive comes the way of the sums and becomes a version like any
// other, one that begins a new scale (see Scale).
//
// Which snapshot a message was read against is recorded with its skills: a
// message of `skills` stands when it landed where its writer expected it (see
// Stands), so that of two workers that hold a partition at the same time only one
// moves it on, and a replay adopts what that one used.
//
// What is written is always an absolute state under a key with the position in
// the log that it reflects, so that writing it again, or an older one later,
// changes nothing.
package transform
