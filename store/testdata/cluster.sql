-- 00001_archive.sql
-- +goose NO TRANSACTION
-- +goose Up

-- The archive: every answer and every test result once, with a token in the
-- place of the learner.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.answers ON CLUSTER scholen
(
    id FixedString(16) COMMENT 'keyed digest of publisher and the publisher''s event id; idempotency key' CODEC(NONE),
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    key_epoch UInt32 COMMENT 'epoch of the key that made the token',
    publisher LowCardinality(String) COMMENT 'uitgever',
    school LowCardinality(String) COMMENT 'BRIN and vestiging',
    `group` LowCardinality(String) COMMENT 'groep/klas, empty = unknown',
    year_group UInt8 COMMENT 'jaargroep 1 to 8, 0 = unknown',
    exercise LowCardinality(String) COMMENT 'opgave, as the publisher calls it',
    goal LowCardinality(String) COMMENT 'leerdoel, empty = unknown',
    subject LowCardinality(String) COMMENT 'vakgebied, empty = unknown',
    kind Enum8('unknown' = 0, 'practice' = 1, 'test' = 2, 'tracking' = 3) COMMENT 'what the answer was given for',
    score Float64 COMMENT '0 to 1, correct = 1',
    attempt UInt16 COMMENT 'from 1, 0 = unknown',
    response_time_ms Nullable(Int32) COMMENT 'milliseconds, NULL = unknown',
    answered_at DateTime64(3, 'UTC') COMMENT 'when the learner answered' CODEC(Delta, LZ4),
    revision UInt32 COMMENT '0 = first delivery, a higher one corrects',
    source_partition UInt16 COMMENT 'partition of the topics raw and answers',
    position UInt64 COMMENT 'place in the log: offset in raw times 2^20, plus row; a correction keeps that of what it corrects' CODEC(Delta, LZ4),
    evidence_gradient Int32 COMMENT 'what the answer said of its exercise, units of 2^-16: information times the difficulty used, plus the gradient there',
    evidence_information UInt16 COMMENT 'how much it said, units of 2^-16; 0 = it moved no exercise',
    corrected UInt64 COMMENT 'place in the log of the correction that the contents come from, 0 = none',
    changed UInt64 COMMENT 'place in the log of the correction or order that wrote this row anew, 0 = as delivered',
    is_deleted UInt8 COMMENT '1 = the row has left this key; FINAL leaves it out',
    version UInt128 MATERIALIZED bitOr(bitShiftLeft(toUInt128(changed), 64), toUInt128(bitNot(position)))
        COMMENT 'which row of one key stays: that of the newest order, then the earliest position',
    source_offset UInt64 ALIAS bitShiftRight(position, 20) COMMENT 'offset in raw',
    source_row UInt32 ALIAS toUInt32(bitAnd(position, 1048575)) COMMENT 'row in the message'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/answers', '{replica}', version, is_deleted)
PARTITION BY toYYYYMM(answered_at)
ORDER BY (school, learner, answered_at, id)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Answers, one row per delivered event; read with FINAL, or through answers_current'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.test_results ON CLUSTER scholen
(
    id FixedString(16) COMMENT 'keyed digest of publisher and the publisher''s event id; idempotency key' CODEC(NONE),
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    key_epoch UInt32 COMMENT 'epoch of the key that made the token',
    publisher LowCardinality(String) COMMENT 'uitgever',
    school LowCardinality(String) COMMENT 'BRIN and vestiging',
    `group` LowCardinality(String) COMMENT 'groep/klas, empty = unknown',
    year_group UInt8 COMMENT 'jaargroep 1 to 8, 0 = unknown',
    test LowCardinality(String) COMMENT 'toets, as the publisher calls it',
    test_name LowCardinality(String) COMMENT 'name of the test, empty = unknown',
    subject LowCardinality(String) COMMENT 'vakgebied, empty = unknown',
    part LowCardinality(String) COMMENT 'part of the test, empty = whole',
    path Array(String) COMMENT 'place in the test, outermost first',
    taken_on Date32 COMMENT 'day of the sitting',
    score Nullable(Float64) COMMENT 'NULL = unknown',
    max_score Nullable(Float64) COMMENT 'NULL = unknown',
    made Nullable(Int32) COMMENT 'exercises made, NULL = unknown',
    right Nullable(Int32) COMMENT 'of these right, NULL = unknown',
    wrong Nullable(Int32) COMMENT 'of these wrong, NULL = unknown',
    duration_s Nullable(Int32) COMMENT 'seconds, NULL = unknown',
    norm_kinds Array(LowCardinality(String)) COMMENT 'norm-referenced values as delivered: kinds',
    norm_values Array(Float64) COMMENT 'norm-referenced values as delivered: values',
    revision UInt32 COMMENT '0 = first delivery, a higher one corrects',
    source_partition UInt16 COMMENT 'partition of the topics raw and answers',
    position UInt64 COMMENT 'place in the log: offset in raw times 2^20, plus row; a correction keeps that of what it corrects' CODEC(Delta, LZ4),
    corrected UInt64 COMMENT 'place in the log of the correction that the contents come from, 0 = none',
    changed UInt64 COMMENT 'place in the log of the correction or order that wrote this row anew, 0 = as delivered',
    is_deleted UInt8 COMMENT '1 = the row has left this key; FINAL leaves it out',
    version UInt128 MATERIALIZED bitOr(bitShiftLeft(toUInt128(changed), 64), toUInt128(bitNot(position)))
        COMMENT 'which row of one key stays: that of the newest order, then the earliest position',
    source_offset UInt64 ALIAS bitShiftRight(position, 20) COMMENT 'offset in raw',
    source_row UInt32 ALIAS toUInt32(bitAnd(position, 1048575)) COMMENT 'row in the message'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/test_results', '{replica}', version, is_deleted)
PARTITION BY toYear(taken_on)
ORDER BY (school, learner, taken_on, id)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Test results, one row per part of a sitting; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.raw_ledger ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the topic raw',
    raw_offset UInt64 COMMENT 'offset of the message in raw' CODEC(Delta, LZ4),
    content Enum8('answers' = 0, 'test_results' = 1, 'commands' = 2, 'rebuild' = 3) COMMENT 'table that took its rows; commands and orders to switch to a rebuild stand in none',
    rows UInt32 COMMENT 'rows in the message',
    archived UInt32 COMMENT 'of these archived as new rows; the others are repeats or corrections',
    corrections UInt32 COMMENT 'of these: took the place of an earlier row, whose position they keep',
    id_sum UInt64 COMMENT 'sum modulo 2^64 of the first 8 bytes (little-endian) of the archived ids',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/raw_ledger', '{replica}')
ORDER BY (partition, raw_offset)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'What became of every message of raw: fsck compares it with Kafka and with the archive'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.erased ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the topic raw',
    ordered_at UInt64 COMMENT 'place in the log of the order or correction' CODEC(Delta, LZ4),
    content Enum8('answers' = 0, 'test_results' = 1) COMMENT 'table that lost the rows',
    reason Enum8('erased' = 0, 'double' = 1) COMMENT 'double = the same event stands there in another row since two learners are one',
    raw_offset UInt64 COMMENT 'offset of the message in raw that had brought them' CODEC(Delta, LZ4),
    rows UInt32 COMMENT 'rows lost',
    id_sum UInt64 COMMENT 'sum modulo 2^64 of the first 8 bytes (little-endian) of their ids',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/erased', '{replica}')
ORDER BY (partition, ordered_at, content, reason, raw_offset)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'How many rows of a message the archive has lost: raw_ledger less this is what it holds'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.departed ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the log',
    learner FixedString(16) COMMENT 'token that nothing belongs to any more, for the purpose analytics',
    position UInt64 COMMENT 'place in the log of the order' CODEC(Delta, LZ4),
    school LowCardinality(String) COMMENT 'BRIN and vestiging',
    into FixedString(16) COMMENT 'token that took everything over, zeros = it was erased',
    purged UInt8 COMMENT '0 = its rows may be on the disk, 1 = they are being taken off, 2 = they are off',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/departed', '{replica}', purged)
ORDER BY (partition, learner, position)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Tokens that have left: what is under them with a lower position is gone'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.vacated ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the log',
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    answered_ms UInt64 COMMENT 'newest moment of an answer that a correction took away, milliseconds since 1970'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/vacated', '{replica}', answered_ms)
ORDER BY (partition, learner)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Until when a learner was seen to answer by rows that have left: only what is newer can be no repeat'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS leerstroom.answers_current ON CLUSTER scholen
AS SELECT
    id, learner, key_epoch, publisher, school, `group`, year_group, exercise, goal, subject, kind, score, attempt,
    response_time_ms, answered_at, revision, concat(publisher, ':', exercise) AS item,
    source_partition, source_offset, source_row
FROM leerstroom.answers FINAL
-- +goose StatementEnd
-- 00002_state.sql
-- +goose NO TRANSACTION
-- +goose Up

-- What the transform stage has computed: absolute states under a key, with the
-- position in the log that they reflect. A row replaces those of its key with a
-- lower position, so that writing one again changes nothing.

-- One insert block is atomic, and the rows of a learner stand in one block:
-- therefore no PARTITION BY.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.skills ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the log that the learner''s school belongs to',
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    layer Enum8('overall' = 0, 'subject' = 1, 'goal' = 2) COMMENT 'a skill is the sum of its layers',
    key LowCardinality(String) COMMENT 'empty for overall, the subject (vakgebied), or the goal (leerdoel)',
    subject LowCardinality(String) COMMENT 'subject of the layer, empty for overall',
    school LowCardinality(String) COMMENT 'BRIN and vestiging',
    `group` LowCardinality(String) COMMENT 'groep/klas, empty = unknown',
    year_group UInt8 COMMENT 'jaargroep 1 to 8, 0 = unknown',
    key_epoch UInt32 COMMENT 'epoch of the key that made the token',
    mean Float64 COMMENT 'of this layer alone, logits',
    variance Float64 COMMENT 'of this layer alone',
    answers UInt32 COMMENT 'answers that moved this layer; 0 = the learner has it no longer',
    last_at DateTime64(3, 'UTC') COMMENT 'newest answered_at' CODEC(Delta, LZ4),
    fast_mean Float64 COMMENT 'recent average of the score, fast',
    slow_mean Float64 COMMENT 'recent average of the score, slow',
    last_score Float64 COMMENT 'score of the last answer',
    position UInt64 COMMENT 'place in the log of the last answer that moved this layer' CODEC(Delta, LZ4),
    recent Array(UInt64) COMMENT 'overall only: xxhash64 of the items last answered, newest last',
    is_deleted UInt8 MATERIALIZED answers = 0 COMMENT '1 = the learner has the layer no longer; FINAL leaves it out'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/skills', '{replica}', position, is_deleted)
ORDER BY (partition, learner, layer, key)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Skill of every learner per layer, as it is now; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.skills_daily ON CLUSTER scholen
(
    school LowCardinality(String) COMMENT 'BRIN and vestiging',
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    layer Enum8('overall' = 0, 'subject' = 1, 'goal' = 2) COMMENT 'a skill is the sum of its layers',
    key LowCardinality(String) COMMENT 'empty for overall, the subject (vakgebied), or the goal (leerdoel)',
    day Date32 COMMENT 'day of the newest answer, Dutch time',
    subject LowCardinality(String) COMMENT 'subject of the layer, empty for overall',
    `group` LowCardinality(String) COMMENT 'groep/klas, empty = unknown',
    year_group UInt8 COMMENT 'jaargroep 1 to 8, 0 = unknown',
    mean Float64 COMMENT 'of this layer alone, logits, as last written that day',
    variance Float64 COMMENT 'of this layer alone',
    answers UInt32 COMMENT 'answers that moved this layer until then',
    position UInt64 COMMENT 'place in the log of the last of them' CODEC(Delta, LZ4),
    is_deleted UInt8 COMMENT '1 = the row has left this key; FINAL leaves it out'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/skills_daily', '{replica}', position, is_deleted)
PARTITION BY toYear(day)
ORDER BY (school, learner, layer, key, day)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Skill of every learner per layer at the end of each day on which it moved; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS leerstroom.skills_daily_feed ON CLUSTER scholen
TO leerstroom.skills_daily
AS SELECT
    school, learner, layer, key, toDate32(last_at, 'Europe/Amsterdam') AS day, subject, `group`, year_group,
    mean, variance, answers, position
FROM leerstroom.skills
WHERE answers > 0
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.item_sums ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the log; the whole is the sum over partitions',
    component Enum8('item' = 0, 'goal' = 1, 'global' = 2) COMMENT 'a difficulty is the sum of its components',
    key String COMMENT 'publisher:exercise, the goal (leerdoel), or empty for global',
    goal LowCardinality(String) COMMENT 'goal of an item, empty = unknown',
    subject LowCardinality(String) COMMENT 'subject of an item or goal, empty = unknown',
    gradient Int64 COMMENT 'sum in units of 2^-32',
    information Int64 COMMENT 'sum in units of 2^-32',
    answers Int64 COMMENT 'first answers of learners that moved the component',
    score_sum Int64 COMMENT 'sum of their scores in units of 2^-32',
    position UInt64 COMMENT 'place in the log of the last answer in the sums' CODEC(Delta, LZ4)
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/item_sums', '{replica}', position)
ORDER BY (partition, component, key)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Absolute integer sums per partition and component of a difficulty; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.norms ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the log; the whole is the sum over partitions',
    layer Enum8('overall' = 0, 'subject' = 1, 'goal' = 2) COMMENT 'which skill',
    key LowCardinality(String) COMMENT 'empty for overall, the subject (vakgebied), or the goal (leerdoel)',
    year_group UInt8 COMMENT 'norm group: jaargroep 1 to 8, 0 = unknown',
    bins Array(UInt16) COMMENT 'ascending bins that hold a learner: 4096 over the skills [-8, 8)',
    counts Array(Int64) COMMENT 'learners in each of these bins',
    position UInt64 COMMENT 'place in the log that the histogram reflects' CODEC(Delta, LZ4)
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/norms', '{replica}', position)
ORDER BY (partition, layer, key, year_group)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Absolute histograms of skill per partition and norm group; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.adoptions ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the log',
    position UInt64 COMMENT 'place in the log from which on the version was used' CODEC(Delta, LZ4),
    version UInt64 COMMENT 'version of the item snapshot',
    generation Int32 COMMENT 'generation of the consumer group of whoever adopted',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/adoptions', '{replica}')
ORDER BY (partition, position, version, generation)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Which partition used which version of the item snapshot from where on'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.relearnt ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the log',
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    position UInt64 COMMENT 'place in the log of the correction or merge: answers up to it were all learnt anew there' CODEC(Delta, LZ4)
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/relearnt', '{replica}', position)
ORDER BY (partition, learner)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Learners whose earlier answers were all read against one version of the item snapshot; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.progress ON CLUSTER scholen
(
    partition UInt16 COMMENT 'partition of the log',
    position UInt64 COMMENT 'everything up to this place in the log is in the other tables',
    raw_offset Int64 COMMENT 'the same as an offset in raw',
    answers_offset Int64 COMMENT 'last message of answers handled',
    skills_offset Int64 COMMENT 'its message in skills',
    snapshot_version UInt64 COMMENT 'item snapshot in use there',
    generation Int32 COMMENT 'generation of the consumer group of whoever wrote',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written',
    version UInt128 MATERIALIZED bitOr(bitShiftLeft(toUInt128(position), 64), toUInt128(toUInt64(answers_offset + 1)))
        COMMENT 'the furthest row of a partition stays'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/progress', '{replica}', version)
ORDER BY partition
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'How far every partition has come, written last; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS leerstroom.item_totals ON CLUSTER scholen
AS SELECT
    s.component AS component, s.key AS key, max(s.goal) AS goal, max(s.subject) AS subject, sum(s.answers) AS answers,
    sum(s.gradient) AS gradient, sum(s.information) AS information, sum(s.score_sum) AS score_sum,
    sum(s.score_sum) / 4294967296 / nullIf(sum(s.answers), 0) AS proportion_correct, uniqExact(s.partition) AS partitions
FROM leerstroom.item_sums AS s FINAL
GROUP BY s.component, s.key
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS leerstroom.norm_totals ON CLUSTER scholen
AS SELECT
    layer, key, year_group, bin, -8 + (bin + 0.5) / 256 AS skill, sum(count) AS learners
FROM leerstroom.norms FINAL
ARRAY JOIN bins AS bin, counts AS count
GROUP BY layer, key, year_group, bin
-- +goose StatementEnd
-- 00003_items.sql
-- +goose NO TRANSACTION
-- +goose Up

-- Item snapshots: immutable versions, each written as what it changes.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.item_snapshots ON CLUSTER scholen
(
    version UInt64 COMMENT 'from 1, without gaps' CODEC(Delta, LZ4),
    component Enum8('item' = 0, 'goal' = 1, 'global' = 2, 'none' = 127) COMMENT 'a difficulty is the sum of its components; none marks a version that changes nothing',
    key String COMMENT 'publisher:exercise, the goal (leerdoel), or empty for global',
    goal LowCardinality(String) COMMENT 'goal of an item, empty = unknown',
    subject LowCardinality(String) COMMENT 'subject of an item or goal, empty = unknown',
    mean Float64 COMMENT 'of this component alone, logits, higher is harder',
    variance Float64 COMMENT 'of this component alone',
    gradient Int64 COMMENT 'total over all partitions that is in the values, in units of 2^-32',
    information Int64 COMMENT 'likewise',
    answers Int64 COMMENT 'first answers of learners that are in the values',
    score_sum Int64 COMMENT 'sum of their scores in units of 2^-32',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/item_snapshots', '{replica}')
ORDER BY (component, key, version)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Every version of the difficulties, as what it changes'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.scales ON CLUSTER scholen
(
    number UInt64 COMMENT 'of the scale, from 1' CODEC(Delta, LZ4),
    goal LowCardinality(String) COMMENT 'leerdoel whose difficulties were refit',
    version UInt64 COMMENT 'of the item snapshot that the scale begins with',
    answers Int64 COMMENT 'first answers that the refit used',
    exercises Int64 COMMENT 'opgaven that link it to the estimates before it',
    slope Float64 COMMENT 'spread of the difficulties before by that of the refit; told, not applied',
    shift Float64 COMMENT 'logits, added to the refit so that zero stays where it was',
    shift_error Float64 COMMENT 'standard error of shift',
    head Array(Float64) COMMENT 'weights that correct predictions from this version on',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/scales', '{replica}')
ORDER BY (number, goal)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Refits of difficulties: scales, with the constants that link each to the one before'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS leerstroom.item_components ON CLUSTER scholen
AS SELECT
    s.component AS component, s.key AS key, argMax(s.goal, s.version) AS goal, argMax(s.subject, s.version) AS subject,
    argMax(s.mean, s.version) AS mean, argMax(s.variance, s.version) AS variance,
    argMax(s.answers, s.version) AS answers, argMax(s.score_sum, s.version) AS score_sum, max(s.version) AS version
FROM leerstroom.item_snapshots AS s
WHERE s.component != 'none'
GROUP BY s.component, s.key
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS leerstroom.items ON CLUSTER scholen
AS SELECT
    i.key AS item,
    substring(i.key, 1, position(i.key, ':') - 1) AS publisher,
    substring(i.key, position(i.key, ':') + 1) AS exercise,
    i.goal AS goal,
    i.subject AS subject,
    i.mean + g.mean + w.mean AS difficulty,
    sqrt(i.variance + g.variance + w.variance) AS standard_error,
    i.answers AS answers,
    i.score_sum / 4294967296 / i.answers AS proportion_correct,
    greatest(i.version, g.version, w.version) AS version
FROM (SELECT * FROM leerstroom.item_components WHERE component = 'item') AS i
LEFT JOIN (SELECT * FROM leerstroom.item_components WHERE component = 'goal') AS g ON g.key = i.goal
LEFT JOIN (SELECT * FROM leerstroom.item_components WHERE component = 'global') AS w ON true
-- +goose StatementEnd
-- 00004_dead_letters.sql
-- +goose NO TRANSACTION
-- +goose Up

-- Index of the dead letters. The letters themselves are sealed and stay in their
-- topic; here is only where they lie and why.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.dead_letters ON CLUSTER scholen
(
    letter_partition UInt16 COMMENT 'partition of the topic of dead letters',
    letter_offset UInt64 COMMENT 'offset in it' CODEC(Delta, LZ4),
    topic LowCardinality(String) COMMENT 'topic that the record came from',
    partition Int32 COMMENT 'its partition there, -1 = the letter does not say',
    offset Int64 COMMENT 'its offset there, -1 = the letter does not say',
    stage LowCardinality(String) COMMENT 'stage that refused it',
    reason LowCardinality(String) COMMENT 'reason code',
    bytes UInt32 COMMENT 'size of the sealed letter',
    state Enum8('waiting' = 0, 'replaying' = 1, 'replayed' = 2, 'purged' = 3) COMMENT 'what became of it',
    replay_offset Int64 COMMENT 'offset in raw: from where on a replay may stand, or where it stands; -1 = there is none',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when the letter was entered',
    version UInt8 MATERIALIZED toUInt8(state) COMMENT 'the row that has come furthest stays'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/dead_letters', '{replica}', version)
ORDER BY (letter_partition, letter_offset)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Where every dead letter lies and why'
-- +goose StatementEnd
-- 00005_frozen_norms.sql
-- +goose NO TRANSACTION
-- +goose Up

-- Frozen norms: the distribution of skill at a moment of a school year, and what
-- learners who began alike reached some weeks later. Both are aggregates over at
-- least 10 learners; nothing here leads to one. A version is never changed.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.frozen_norms ON CLUSTER scholen
(
    name LowCardinality(String) COMMENT 'school year and moment (afnamemoment), such as 2026-2027-M',
    version UInt32 COMMENT 'from 1',
    layer Enum8('overall' = 0, 'subject' = 1, 'goal' = 2) COMMENT 'which skill',
    key LowCardinality(String) COMMENT 'empty for overall, the subject (vakgebied), or the goal (leerdoel)',
    subject LowCardinality(String) COMMENT 'subject of a goal, empty = unknown, and for overall',
    year_group UInt8 COMMENT 'norm group: jaargroep 1 to 8',
    learners UInt64 COMMENT 'in the norm group, at least 10',
    bins Array(UInt16) COMMENT 'ascending bins that hold a learner: 4096 over the skills [-8, 8)',
    counts Array(Int64) COMMENT 'learners in each of these bins',
    variances Array(Int64) COMMENT 'per run of 32 bins that holds a learner: sum of the variances of their skills, in units of 2^-20'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/frozen_norms', '{replica}')
ORDER BY (name, version, layer, key, year_group)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Histograms of skill of frozen norms; a version counts when norm_versions has it'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.norm_growth ON CLUSTER scholen
(
    name LowCardinality(String) COMMENT 'school year and moment, such as 2026-2027-M',
    version UInt32 COMMENT 'from 1',
    layer Enum8('overall' = 0, 'subject' = 1, 'goal' = 2) COMMENT 'which skill',
    key LowCardinality(String) COMMENT 'empty for overall, the subject (vakgebied), or the goal (leerdoel)',
    year_group UInt8 COMMENT 'jaargroep at the start',
    start Int16 COMMENT 'skill at the start, in halves of a logit, rounded down',
    weeks UInt8 COMMENT 'weeks after the start',
    learners UInt64 COMMENT 'who began there and were still practising, at least 10',
    median Float64 COMMENT 'skill reached, rounded to .05',
    low Nullable(Float64) COMMENT 'lower quartile, NULL under 40 learners',
    high Nullable(Float64) COMMENT 'upper quartile, NULL under 40 learners'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/norm_growth', '{replica}')
ORDER BY (name, version, layer, key, year_group, start, weeks)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'What comparable learners reached, without identity'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.norm_versions ON CLUSTER scholen
(
    name LowCardinality(String) COMMENT 'school year and moment, such as 2026-2027-M',
    version UInt32 COMMENT 'from 1',
    school_year UInt16 COMMENT 'year in which the school year begins',
    moment LowCardinality(String) COMMENT 'afnamemoment, such as M and E',
    as_of Date32 COMMENT 'the skills are those at the end of this day, Dutch time',
    taken_at DateTime64(3, 'UTC') COMMENT 'when it was frozen',
    learners UInt64 COMMENT 'who answered in the school year until then',
    norm_groups UInt32 COMMENT 'rows in frozen_norms',
    growth_cells UInt32 COMMENT 'rows in norm_growth',
    digest String COMMENT 'SHA-256 of both, hex'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/norm_versions', '{replica}', taken_at)
ORDER BY (name, version)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Every frozen norm that is complete: written last; read with FINAL'
-- +goose StatementEnd
-- 00006_rebuilds.sql
-- +goose NO TRANSACTION
-- +goose Up

-- What rebuilds have computed and partitions have not switched to yet. Rows are
-- dropped when a rebuild is over.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.rebuilds ON CLUSTER scholen
(
    rebuild UInt64 COMMENT 'number of the rebuild' CODEC(Delta, LZ4),
    partition UInt16 COMMENT 'partition of the log that is staged as a whole',
    position UInt64 COMMENT 'everything up to this place in the log is in what is staged' CODEC(Delta, LZ4),
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/rebuilds', '{replica}')
ORDER BY (rebuild, partition)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Partitions that a rebuild has staged, written last'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.rebuilt_skills ON CLUSTER scholen
(
    rebuild UInt64 COMMENT 'number of the rebuild' CODEC(Delta, LZ4),
    partition UInt16 COMMENT 'the columns from here on are those of skills',
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    layer Enum8('overall' = 0, 'subject' = 1, 'goal' = 2) COMMENT 'a skill is the sum of its layers',
    key LowCardinality(String) COMMENT 'empty for overall, the subject (vakgebied), or the goal (leerdoel)',
    subject LowCardinality(String) COMMENT 'subject of the layer, empty for overall',
    school LowCardinality(String) COMMENT 'BRIN and vestiging',
    `group` LowCardinality(String) COMMENT 'groep/klas, empty = unknown',
    year_group UInt8 COMMENT 'jaargroep 1 to 8, 0 = unknown',
    key_epoch UInt32 COMMENT 'epoch of the key that made the token',
    mean Float64 COMMENT 'of this layer alone, logits',
    variance Float64 COMMENT 'of this layer alone',
    answers UInt32 COMMENT 'answers that moved this layer',
    last_at DateTime64(3, 'UTC') COMMENT 'newest answered_at' CODEC(Delta, LZ4),
    fast_mean Float64 COMMENT 'recent average of the score, fast',
    slow_mean Float64 COMMENT 'recent average of the score, slow',
    last_score Float64 COMMENT 'score of the last answer',
    position UInt64 COMMENT 'that of the partition when it was computed' CODEC(Delta, LZ4),
    recent Array(UInt64) COMMENT 'overall only: xxhash64 of the items last answered, newest last'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/rebuilt_skills', '{replica}')
PARTITION BY rebuild
ORDER BY (partition, learner, layer, key)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Learners who come out of a rebuild otherwise than they are stored'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.rebuilt_scores ON CLUSTER scholen
(
    rebuild UInt64 COMMENT 'number of the rebuild' CODEC(Delta, LZ4),
    partition UInt16 COMMENT 'partition of the log',
    position UInt64 COMMENT 'place in the log of the answer' CODEC(Delta, LZ4),
    gradient Int32 COMMENT 'evidence_gradient of the answer by the rebuild',
    information UInt16 COMMENT 'evidence_information of the answer by the rebuild'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/rebuilt_scores', '{replica}')
PARTITION BY rebuild
ORDER BY (partition, position)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'Answers that say something else of their exercise by a rebuild'
-- +goose StatementEnd
-- 00007_told_items.sql
-- +goose NO TRANSACTION
-- +goose Up

-- What releases have told of exercises: aggregates over at least 10 learners of 3
-- schools; nothing here leads to one.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS leerstroom.told_items ON CLUSTER scholen
(
    release UInt64 COMMENT 'from 1; an exercise is told as in its highest one',
    publisher LowCardinality(String) COMMENT 'uitgever',
    exercise String COMMENT 'opgave, as the publisher calls it',
    goal LowCardinality(String) COMMENT 'leerdoel, empty = unknown',
    subject LowCardinality(String) COMMENT 'vakgebied, empty = unknown',
    difficulty Float64 COMMENT 'logits, higher is harder',
    standard_error Float64 COMMENT 'of the difficulty',
    answers Int64 COMMENT 'in the archive',
    learners Int64 COMMENT 'distinct, who gave them',
    schools Int64 COMMENT 'distinct, of these learners',
    proportion_correct Float64 COMMENT 'mean score of the first answer of every learner',
    version UInt64 COMMENT 'of the item snapshot that last changed the difficulty',
    until Array(UInt64) COMMENT 'per partition: answers at positions below it are in the values'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/told_items', '{replica}')
ORDER BY (publisher, exercise, release)
SETTINGS min_bytes_for_wide_part = 67108864, fsync_after_insert = 1, fsync_part_directory = 1, replicated_deduplication_window = 0, storage_policy = 'ssd'
COMMENT 'What was told of exercises; a later release tells one anew only when enough learners are new'
-- +goose StatementEnd
