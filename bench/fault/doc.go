// Package fault breaks a running Leerstroom on purpose and checks that nothing
// was lost, doubled or moved.
//
// A Campaign runs every stage as processes of their own, several of each, against
// Apache Kafka or the embedded broker and the embedded ClickHouse. Between each
// process and each engine lies a link that can be cut at a byte, stalled or
// slowed; the engines may lie on a file system that can be filled or lose power.
// A round pushes answers through the connector, breaks things meanwhile, waits
// until everything stands again, and compares:
//
//   - the archive with what the publisher was told is accepted: every answer and
//     test result once, in its newest revision, every field as sent, one token for
//     one learner and no other;
//   - answers with what they say, skills, item sums and norm histograms, bit by bit,
//     with an undisturbed computation over the same log and the recorded snapshot
//     versions, corrections, merges, erasures and rotations followed plainly;
//   - the recorded versions with those that the log names;
//   - everything that `leerstroom fsck` compares.
//
// Invariants:
//   - What a round does follows from its seed alone; when it happens is left to
//     the machine. A failure prints the command that does the same again.
//   - Nothing is checked with the code that wrote it: the archive is read over
//     HTTP as text, and the undisturbed computation begins with nothing.
//   - Processes, mounts and directories are gone after Close.
package fault
