-- +goose NO TRANSACTION
-- +goose Up

-- What the transform stage has computed: absolute states under a key, with the
-- position in the log that they reflect. A row replaces those of its key with a
-- lower position, so that writing one again changes nothing.

-- One insert block is atomic, and the rows of a learner stand in one block:
-- therefore no PARTITION BY.
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.skills {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "skills" "position" "is_deleted"}}
ORDER BY (partition, learner, layer, key)
{{settings}}
COMMENT 'Skill of every learner per layer, as it is now; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.skills_daily {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "skills_daily" "position" "is_deleted"}}
PARTITION BY toYear(day)
ORDER BY (school, learner, layer, key, day)
{{settings}}
COMMENT 'Skill of every learner per layer at the end of each day on which it moved; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE MATERIALIZED VIEW IF NOT EXISTS {{.Database}}.skills_daily_feed {{.OnCluster}}
TO {{.Database}}.skills_daily
AS SELECT
    school, learner, layer, key, toDate32(last_at, 'Europe/Amsterdam') AS day, subject, `group`, year_group,
    mean, variance, answers, position
FROM {{.Database}}.skills
WHERE answers > 0
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.item_sums {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "item_sums" "position"}}
ORDER BY (partition, component, key)
{{settings}}
COMMENT 'Absolute integer sums per partition and component of a difficulty; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.norms {{.OnCluster}}
(
    partition UInt16 COMMENT 'partition of the log; the whole is the sum over partitions',
    layer Enum8('overall' = 0, 'subject' = 1, 'goal' = 2) COMMENT 'which skill',
    key LowCardinality(String) COMMENT 'empty for overall, the subject (vakgebied), or the goal (leerdoel)',
    year_group UInt8 COMMENT 'norm group: jaargroep 1 to 8, 0 = unknown',
    bins Array(UInt16) COMMENT 'ascending bins that hold a learner: 4096 over the skills [-8, 8)',
    counts Array(Int64) COMMENT 'learners in each of these bins',
    position UInt64 COMMENT 'place in the log that the histogram reflects' CODEC(Delta, LZ4)
)
ENGINE = {{engine "ReplacingMergeTree" "norms" "position"}}
ORDER BY (partition, layer, key, year_group)
{{settings}}
COMMENT 'Absolute histograms of skill per partition and norm group; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.adoptions {{.OnCluster}}
(
    partition UInt16 COMMENT 'partition of the log',
    position UInt64 COMMENT 'place in the log from which on the version was used' CODEC(Delta, LZ4),
    version UInt64 COMMENT 'version of the item snapshot',
    generation Int32 COMMENT 'generation of the consumer group of whoever adopted',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'when this row was written'
)
ENGINE = {{engine "ReplacingMergeTree" "adoptions"}}
ORDER BY (partition, position, version, generation)
{{settings}}
COMMENT 'Which partition used which version of the item snapshot from where on'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.relearnt {{.OnCluster}}
(
    partition UInt16 COMMENT 'partition of the log',
    learner FixedString(16) COMMENT 'token for the purpose analytics',
    position UInt64 COMMENT 'place in the log of the correction or merge: answers up to it were all learnt anew there' CODEC(Delta, LZ4)
)
ENGINE = {{engine "ReplacingMergeTree" "relearnt" "position"}}
ORDER BY (partition, learner)
{{settings}}
COMMENT 'Learners whose earlier answers were all read against one version of the item snapshot; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.progress {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "progress" "version"}}
ORDER BY partition
{{settings}}
COMMENT 'How far every partition has come, written last; read with FINAL'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS {{.Database}}.item_totals {{.OnCluster}}
AS SELECT
    s.component AS component, s.key AS key, max(s.goal) AS goal, max(s.subject) AS subject, sum(s.answers) AS answers,
    sum(s.gradient) AS gradient, sum(s.information) AS information, sum(s.score_sum) AS score_sum,
    sum(s.score_sum) / 4294967296 / nullIf(sum(s.answers), 0) AS proportion_correct, uniqExact(s.partition) AS partitions
FROM {{.Database}}.item_sums AS s FINAL
GROUP BY s.component, s.key
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS {{.Database}}.norm_totals {{.OnCluster}}
AS SELECT
    layer, key, year_group, bin, -8 + (bin + 0.5) / 256 AS skill, sum(count) AS learners
FROM {{.Database}}.norms FINAL
ARRAY JOIN bins AS bin, counts AS count
GROUP BY layer, key, year_group, bin
-- +goose StatementEnd
