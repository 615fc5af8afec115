-- +goose NO TRANSACTION
-- +goose Up

-- Frozen norms: the distribution of skill at a moment of a school year, and what
-- learners who began alike reached some weeks later. Both are aggregates over at
-- least 10 learners; nothing here leads to one. A version is never changed.

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.frozen_norms {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "frozen_norms"}}
ORDER BY (name, version, layer, key, year_group)
{{settings}}
COMMENT 'Histograms of skill of frozen norms; a version counts when norm_versions has it'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.norm_growth {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "norm_growth"}}
ORDER BY (name, version, layer, key, year_group, start, weeks)
{{settings}}
COMMENT 'What comparable learners reached, without identity'
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS {{.Database}}.norm_versions {{.OnCluster}}
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
ENGINE = {{engine "ReplacingMergeTree" "norm_versions" "taken_at"}}
ORDER BY (name, version)
{{settings}}
COMMENT 'Every frozen norm that is complete: written last; read with FINAL'
-- +goose StatementEnd
