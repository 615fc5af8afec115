-- +goose NO TRANSACTION
-- +goose Up

-- Index of the dead letters. The letters themselves are sealed and stay in their
-- topic; here is only where they lie and why.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.dead_letters {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "dead_letters" "version"}}
ORDER BY (letter_partition, letter_offset)
{{settings}}
COMMENT 'Where every dead letter lies and why'
-- +goose StatementEnd
