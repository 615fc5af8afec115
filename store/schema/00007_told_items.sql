-- +goose NO TRANSACTION
-- +goose Up

-- What releases have told of exercises: aggregates over at least 10 learners of 3
-- schools; nothing here leads to one.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.told_items {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "told_items"}}
ORDER BY (publisher, exercise, release)
{{settings}}
COMMENT 'What was told of exercises; a later release tells one anew only when enough learners are new'
-- +goose StatementEnd
