-- +goose NO TRANSACTION
-- +goose Up

-- What rebuilds have computed and partitions have not switched to yet. Rows are
-- dropped when a rebuild is over.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.rebuilds {{.OnCluster}}
(
    rebuild UInt64 COMMENT 'number of the rebuild' CODEC(Delta, LZ4),
    partition UInt16 COMMENT 'partition of the log that is staged as a whole',
    position UInt64 COMMENT 'everything up to this place in the log is in what is staged' CODEC(Delta, LZ4),
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = {{engine "ReplacingMergeTree" "rebuilds"}}
ORDER BY (rebuild, partition)
{{settings}}
COMMENT 'Partitions that a rebuild has staged, written last'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.rebuilt_skills {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "rebuilt_skills"}}
PARTITION BY rebuild
ORDER BY (partition, learner, layer, key)
{{settings}}
COMMENT 'Learners who come out of a rebuild otherwise than they are stored'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.rebuilt_scores {{.OnCluster}}
(
    rebuild UInt64 COMMENT 'number of the rebuild' CODEC(Delta, LZ4),
    partition UInt16 COMMENT 'partition of the log',
    position UInt64 COMMENT 'place in the log of the answer' CODEC(Delta, LZ4),
    gradient Int32 COMMENT 'evidence_gradient of the answer by the rebuild',
    information UInt16 COMMENT 'evidence_information of the answer by the rebuild'
)
ENGINE = {{engine "ReplacingMergeTree" "rebuilt_scores"}}
PARTITION BY rebuild
ORDER BY (partition, position)
{{settings}}
COMMENT 'Answers that say something else of their exercise by a rebuild'
-- +goose StatementEnd
