-- +goose NO TRANSACTION
-- +goose Up

-- The identity registry as it is at one offset of its log. Everything that
-- belongs to one offset is inserted as one block, which is written whole or not
-- at all: therefore one table, and no PARTITION BY. The rows of one epoch are a
-- registry of their own; the newest epoch of a partition counts. So a worker that
-- has slept through a rotation of the keys spoils nothing.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.identities {{.OnCluster}}
(
    partition UInt16 COMMENT 'partition of the topics raw, answers and registry',
    kind Enum8('progress' = 0, 'learner' = 1, 'alias' = 2, 'name' = 3, 'tombstone' = 4),
    epoch UInt32 COMMENT 'epoch of the key that digests the aliases',
    key FixedString(16) COMMENT 'learner, name and tombstone: random id; alias: keyed digest; progress: 0' CODEC(NONE),
    learner FixedString(16) COMMENT 'alias: id of its learner; learner merged into another: id of that one' CODEC(NONE),
    school LowCardinality(String) COMMENT 'BRIN and vestiging; empty after an erasure',
    flags UInt8 COMMENT 'learner: 1 = known to a roster, 2 = erased, 4 = merged into another, 8 = has a name, 16 = its move is not announced; tombstone: 16 = not announced',
    sealed String COMMENT 'learner: salt; alias: readable alias; name: the name; tombstone: the tokens that go; progress: what is in force' CODEC(NONE),
    version UInt64 COMMENT 'registry offset below which everything is contained',
    deleted UInt8 COMMENT '1 = the alias or name was taken away'
)
ENGINE = {{engine "ReplacingMergeTree" "identities" "version" "deleted"}}
ORDER BY (partition, kind, epoch, key)
{{settings}}
COMMENT 'Aliases, names and salts of learners, sealed; read with FINAL. The only table that leads back to a pupil'
-- +goose StatementEnd
