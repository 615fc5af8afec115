package store

import (
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/transform"
)

// skillsBlock are rows of the table skills.
type skillsBlock struct {
	block
	partition                     proto.ColUInt16
	learner                       proto.ColFixedStr16
	layer                         enumColumn
	key, subject, school, group   wordColumn
	yearGroup                     proto.ColUInt8
	keyEpoch                      proto.ColUInt32
	mean, variance                proto.ColFloat64
	answers                       proto.ColUInt32
	lastAt                        millisColumn
	fastMean, slowMean, lastScore proto.ColFloat64
	position                      proto.ColUInt64
	recentValues                  proto.ColUInt64
	recent                        *proto.ColArr[uint64]
}

func newSkillsBlock(database string) *skillsBlock {
	b := &skillsBlock{layer: enumColumn{is: typeLayer}}
	for _, w := range []*wordColumn{&b.key, &b.subject, &b.school, &b.group} {
		w.init()
	}
	b.recent = &proto.ColArr[uint64]{Data: &b.recentValues}
	b.block = newBlock(database, "skills", b.skillsColumns()...)
	return b
}

func (b *skillsBlock) skillsColumns() proto.Input {
	return proto.Input{column("partition", &b.partition), column("learner", &b.learner), column("layer", &b.layer), column("key", &b.key),
		column("subject", &b.subject), column("school", &b.school), column("group", &b.group), column("year_group", &b.yearGroup),
		column("key_epoch", &b.keyEpoch), column("mean", &b.mean), column("variance", &b.variance), column("answers", &b.answers),
		column("last_at", &b.lastAt), column("fast_mean", &b.fastMean), column("slow_mean", &b.slowMean),
		column("last_score", &b.lastScore), column("position", &b.position), column("recent", b.recent)}
}

func (b *skillsBlock) append(partition int, r *transform.SkillRows, first, last int) {
	b.partition = fill(b.partition, uint16(partition), last-first)
	for i := first; i < last; i++ {
		b.learner = append(b.learner, r.Learner[i].Bytes())
		b.layer.ColUInt8 = append(b.layer.ColUInt8, uint8(r.Layer[i]))
		b.position = append(b.position, uint64(r.Position[i]))
		b.recentValues = append(b.recentValues, r.Recent[i]...)
		b.recent.Offsets = append(b.recent.Offsets, uint64(len(b.recentValues)))
	}
	b.key.appendWords(r.Key[first:last])
	b.subject.appendWords(r.Subject[first:last])
	b.school.appendWords(r.School[first:last])
	b.group.appendWords(r.Group[first:last])
	b.yearGroup = append(b.yearGroup, r.YearGroup[first:last]...)
	b.keyEpoch = append(b.keyEpoch, r.KeyEpoch[first:last]...)
	b.mean = append(b.mean, r.Mean[first:last]...)
	b.variance = append(b.variance, r.Variance[first:last]...)
	b.answers = append(b.answers, r.Answers[first:last]...)
	b.lastAt.ColInt64 = append(b.lastAt.ColInt64, r.LastAt[first:last]...)
	b.fastMean = append(b.fastMean, r.FastMean[first:last]...)
	b.slowMean = append(b.slowMean, r.SlowMean[first:last]...)
	b.lastScore = append(b.lastScore, r.LastScore[first:last]...)
}

// sumsBlock are rows of the table item_sums.
type sumsBlock struct {
	block
	partition                                proto.ColUInt16
	component                                enumColumn
	key                                      proto.ColStr
	goal, subject                            wordColumn
	gradient, information, answers, scoreSum proto.ColInt64
	position                                 proto.ColUInt64
}

func newSumsBlock(database string) *sumsBlock {
	b := &sumsBlock{component: enumColumn{is: typeComponent}}
	b.goal.init()
	b.subject.init()
	b.block = newBlock(database, "item_sums",
		column("partition", &b.partition), column("component", &b.component), column("key", &b.key), column("goal", &b.goal),
		column("subject", &b.subject), column("gradient", &b.gradient), column("information", &b.information),
		column("answers", &b.answers), column("score_sum", &b.scoreSum), column("position", &b.position))
	return b
}

func (b *sumsBlock) append(partition int, r *transform.ItemSumRows) {
	b.partition = fill(b.partition, uint16(partition), r.Len())
	for i := range r.Len() {
		b.component.ColUInt8 = append(b.component.ColUInt8, uint8(r.Component[i]))
		b.key.Append(r.Key[i])
		b.position = append(b.position, uint64(r.Position[i]))
	}
	b.goal.appendWords(r.Goal)
	b.subject.appendWords(r.Subject)
	b.gradient = append(b.gradient, r.Gradient...)
	b.information = append(b.information, r.Information...)
	b.answers = append(b.answers, r.Answers...)
	b.scoreSum = append(b.scoreSum, r.ScoreSum...)
}

// normsBlock are rows of the table norms.
type normsBlock struct {
	block
	partition proto.ColUInt16
	layer     enumColumn
	key       wordColumn
	yearGroup proto.ColUInt8
	bins      *proto.ColArr[uint16]
	counts    *proto.ColArr[int64]
	position  proto.ColUInt64
}

func newNormsBlock(database string) *normsBlock {
	b := &normsBlock{layer: enumColumn{is: typeLayer}, bins: new(proto.ColUInt16).Array(), counts: new(proto.ColInt64).Array()}
	b.key.init()
	b.block = newBlock(database, "norms",
		column("partition", &b.partition), column("layer", &b.layer), column("key", &b.key), column("year_group", &b.yearGroup),
		column("bins", b.bins), column("counts", b.counts), column("position", &b.position))
	return b
}

func (b *normsBlock) append(partition int, r *transform.NormRows) {
	b.partition = fill(b.partition, uint16(partition), r.Len())
	for i := range r.Len() {
		b.layer.ColUInt8 = append(b.layer.ColUInt8, uint8(r.Layer[i]))
		b.bins.Append(r.Bins[i])
		b.counts.Append(r.Counts[i])
		b.position = append(b.position, uint64(r.Position[i]))
	}
	b.key.appendWords(r.Key)
	b.yearGroup = append(b.yearGroup, r.YearGroup...)
}

// adoptionsBlock are rows of the table adoptions.
type adoptionsBlock struct {
	block
	partition         proto.ColUInt16
	position, version proto.ColUInt64
	generation        proto.ColInt32
}

func newAdoptionsBlock(database string) *adoptionsBlock {
	b := &adoptionsBlock{}
	b.block = newBlock(database, "adoptions",
		column("partition", &b.partition), column("position", &b.position), column("version", &b.version), column("generation", &b.generation))
	return b
}

func (b *adoptionsBlock) append(partition int, adoptions []transform.Adoption) {
	for _, a := range adoptions {
		b.partition = append(b.partition, uint16(partition))
		b.position = append(b.position, uint64(a.Position))
		b.version = append(b.version, a.Version)
		b.generation = append(b.generation, a.Generation)
	}
}

// progressBlock are rows of the table progress, at most one per partition.
type progressBlock struct {
	block
	partition                              proto.ColUInt16
	position, snapshotVersion              proto.ColUInt64
	rawOffset, answersOffset, skillsOffset proto.ColInt64
	generation                             proto.ColInt32
}

func newProgressBlock(database string) *progressBlock {
	b := &progressBlock{}
	b.block = newBlock(database, "progress",
		column("partition", &b.partition), column("position", &b.position), column("raw_offset", &b.rawOffset),
		column("answers_offset", &b.answersOffset), column("skills_offset", &b.skillsOffset),
		column("snapshot_version", &b.snapshotVersion), column("generation", &b.generation))
	return b
}

func (b *progressBlock) append(c *transform.Checkpoint) {
	b.partition = append(b.partition, uint16(c.Partition))
	b.position = append(b.position, uint64(c.Position))
	b.rawOffset = append(b.rawOffset, c.Position.RawOffset())
	b.answersOffset = append(b.answersOffset, c.AnswersOffset)
	b.skillsOffset = append(b.skillsOffset, c.SkillsOffset)
	b.snapshotVersion = append(b.snapshotVersion, c.SnapshotVersion)
	b.generation = append(b.generation, c.Generation)
}
