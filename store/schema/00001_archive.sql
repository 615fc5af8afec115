-- +goose NO TRANSACTION
-- +goose Up

-- The archive: every answer and every test result once, with a token in the
-- place of the learner.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.answers {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "answers" "version" "is_deleted"}}
PARTITION BY toYYYYMM(answered_at)
ORDER BY (school, learner, answered_at, id)
{{settings}}
COMMENT 'Answers, one row per delivered event; read with FINAL, or through answers_current'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.test_results {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "test_results" "version" "is_deleted"}}
PARTITION BY toYear(taken_on)
ORDER BY (school, learner, taken_on, id)
{{settings}}
COMMENT 'Test results, one row per part of a sitting; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.raw_ledger {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "raw_ledger"}}
ORDER BY (partition, raw_offset)
{{settings}}
COMMENT 'What became of every message of raw: fsck compares it with Kafka and with the archive'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.erased {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "erased"}}
ORDER BY (partition, ordered_at, content, reason, raw_offset)
{{settings}}
COMMENT 'How many rows of a message the archive has lost: raw_ledger less this is what it holds'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.departed {{.OnCluster}}
(
    partition UInt16 COMMENT 'partition of the log',
    learner FixedString(16) COMMENT 'token that nothing belongs to any more, for the purpose analytics',
    position UInt64 COMMENT 'place in the log of the order' CODEC(Delta, LZ4),
    school LowCardinality(String) COMMENT 'BRIN and vestiging',
    into FixedString(16) COMMENT 'token that took everything over, zeros = it was erased',
    purged UInt8 COMMENT '0 = its rows may be on the disk, 1 = they are being taken off, 2 = they are off',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = {{engine "ReplacingMergeTree" "departed" "purged"}}
ORDER BY (partition, learner, position)
{{settings}}
COMMENT 'Tokens that have left: what is under them with a lower position is gone'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.vacated {{.OnCluster}}
(
    partition UInt16 COMMENT 'partition of the log',
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    answered_ms UInt64 COMMENT 'newest moment of an answer that a correction took away, milliseconds since 1970'
)
ENGINE = {{engine "ReplacingMergeTree" "vacated" "answered_ms"}}
ORDER BY (partition, learner)
{{settings}}
COMMENT 'Until when a learner was seen to answer by rows that have left: only what is newer can be no repeat'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS {{.Database}}.answers_current {{.OnCluster}}
AS SELECT
    id, learner, key_epoch, publisher, school, `group`, year_group, exercise, goal, subject, kind, score, attempt,
    response_time_ms, answered_at, revision, concat(publisher, ':', exercise) AS item,
    source_partition, source_offset, source_row
FROM {{.Database}}.answers FINAL
-- +goose StatementEnd
