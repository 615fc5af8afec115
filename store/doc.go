// Package store keeps everything but identities in ClickHouse: the archive of
// answers and test results, the states that package transform computes, and what
// is needed to begin again after a crash.
//
// Invariants:
//   - A checkpoint is durable in the order archive, ledger and
//     adoptions, then sums and norms, then skills, then progress. At every instant, what is in a
//     table stands on what must be in the tables before it.
//   - Every row is an absolute fact or state under a key, with the position in
//     the log that it reflects. Writing it again, or an older one later, changes
//     nothing: of the rows of a key, ReplacingMergeTree keeps the newest.
//   - The rows of a learner are in one insert, which ClickHouse takes as a whole.
//   - An insert is on disk before it is acknowledged, so that an offset that was
//     committed never outruns what survives power loss.
//   - Memory is bounded: a fixed number of batches; writers wait for a free one.
//   - No error and no log line quotes ClickHouse's messages, which may hold
//     values; they carry its error code.
//   - Values reach a query as bound parameters, as columns or as tables beside
//     it, never in its text.
//
// The tables are described where they are made, in schema/*.sql; their comments
// are in ClickHouse too.
//
// # Why the low-level driver
//
// Inserts and bulk reads use the columns and the client of ch-go, not batches of
// clickhouse-go, which it is the base of. Columns are Go slices that go to the
// connection as they are; a dictionary column becomes LowCardinality by
// renumbering its distinct values, so that no row is boxed, copied as a string
// or hashed. BenchmarkArchive holds both against each other, same rows, same
// server, rows durable at the end. clickhouse-go serves the migrations
// (database/sql) and the tests.
//
// # What makes inserts fast
//
// Rows are sorted in the order of the table before they are sent: ClickHouse
// finds them sorted and saves its own sort, a third of its work, for a radix
// sort here. optimize_on_insert is off (it more than halves the rate; FINAL and
// merges do its work), and parts stay compact up to 64 MiB, which makes the sync
// cheap: it costs a fifth of the rate.
//
// # Clusters
//
// Servers of one shard that are replicas of each other work by configuration:
// ON CLUSTER and replicated engines in the schema, a majority of replicas for
// inserts, and a replica that has caught up for Restore. Several shards are not
// supported. The embedded engine has no Keeper, so this is tested as text.
package store
