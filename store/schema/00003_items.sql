-- +goose NO TRANSACTION
-- +goose Up

-- Item snapshots: immutable versions, each written as what it changes.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.item_snapshots {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "item_snapshots"}}
ORDER BY (component, key, version)
{{settings}}
COMMENT 'Every version of the difficulties, as what it changes'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.scales {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "scales"}}
ORDER BY (number, goal)
{{settings}}
COMMENT 'Refits of difficulties: scales, with the constants that link each to the one before'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS {{.Database}}.item_components {{.OnCluster}}
AS SELECT
    s.component AS component, s.key AS key, argMax(s.goal, s.version) AS goal, argMax(s.subject, s.version) AS subject,
    argMax(s.mean, s.version) AS mean, argMax(s.variance, s.version) AS variance,
    argMax(s.answers, s.version) AS answers, argMax(s.score_sum, s.version) AS score_sum, max(s.version) AS version
FROM {{.Database}}.item_snapshots AS s
WHERE s.component != 'none'
GROUP BY s.component, s.key
-- +goose StatementEnd

-- +goose StatementBegin
CREATE VIEW IF NOT EXISTS {{.Database}}.items {{.OnCluster}}
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
FROM (SELECT * FROM {{.Database}}.item_components WHERE component = 'item') AS i
LEFT JOIN (SELECT * FROM {{.Database}}.item_components WHERE component = 'goal') AS g ON g.key = i.goal
LEFT JOIN (SELECT * FROM {{.Database}}.item_components WHERE component = 'global') AS w ON true
-- +goose StatementEnd
