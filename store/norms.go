package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/transform"
)

// NormVersions returns every frozen norm, by name and version.
func (s *Store) NormVersions(ctx context.Context) ([]transform.NormVersion, error) {
	if err := s.catchUp(ctx, "norm_versions"); err != nil {
		return nil, fmt.Errorf("read versions of norms: %w", err)
	}
	var versions []transform.NormVersion
	err := s.read(ctx, func() ch.Query {
		versions = nil
		var name, moment, digest proto.ColStr
		var version, groups, cells proto.ColUInt32
		var schoolYear proto.ColUInt16
		var asOf proto.ColInt32
		var takenAt proto.ColInt64
		var learners proto.ColUInt64
		return ch.Query{
			Body: "SELECT CAST(name, 'String') AS norm, version, school_year, CAST(moment, 'String') AS moment_name, toInt32(as_of) AS day, " +
				"toUnixTimestamp64Milli(taken_at) AS taken_ms, learners, norm_groups, growth_cells, digest FROM " +
				s.table("norm_versions") + " FINAL ORDER BY norm, version",
			Result: proto.Results{{Name: "norm", Data: &name}, {Name: "version", Data: &version}, {Name: "school_year", Data: &schoolYear},
				{Name: "moment_name", Data: &moment}, {Name: "day", Data: &asOf}, {Name: "taken_ms", Data: &takenAt},
				{Name: "learners", Data: &learners}, {Name: "norm_groups", Data: &groups}, {Name: "growth_cells", Data: &cells}, {Name: "digest", Data: &digest}},
			OnResult: func(_ context.Context, block proto.Block) error {
				for i := range block.Rows {
					versions = append(versions, transform.NormVersion{Name: name.Row(i), Version: version[i],
						SchoolYear: transform.SchoolYear(schoolYear[i]), Moment: moment.Row(i), AsOf: transform.Day(asOf[i]),
						TakenAt: time.UnixMilli(takenAt[i]).UTC(), Learners: int64(learners[i]), GroupCount: int(groups[i]), CellCount: int(cells[i]),
						Digest: digest.Row(i)})
				}
				return nil
			},
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read versions of norms: %w", err)
	}
	return versions, nil
}

// ErrNormIncomplete says that a version of a norm is not there as its entry says.
var ErrNormIncomplete = errors.New("the norm is not as large as its entry says")

// LoadNorm returns a frozen norm by an entry of NormVersions.
func (s *Store) LoadNorm(ctx context.Context, version transform.NormVersion) (*transform.FrozenNorm, error) {
	norm := &transform.FrozenNorm{NormVersion: version}
	err := s.catchUp(ctx, "frozen_norms", "norm_growth")
	if err == nil {
		err = s.loadNormGroups(ctx, norm)
	}
	if err == nil {
		err = s.loadGrowth(ctx, norm)
	}
	if err == nil && (len(norm.Groups) != version.GroupCount || len(norm.Growth) != version.CellCount) {
		err = ErrNormIncomplete
	}
	if err != nil {
		return nil, fmt.Errorf("load norm %s version %d: %w", version.Name, version.Version, err)
	}
	return norm, nil
}

func ofNorm(v *transform.NormVersion) []proto.Parameter {
	return ch.Parameters(parameters{"name": v.Name, "version": v.Version})
}

const whereNorm = " FINAL WHERE name = {name:String} AND version = {version:UInt32} ORDER BY layer, key, year_group"

func (s *Store) loadNormGroups(ctx context.Context, norm *transform.FrozenNorm) error {
	return s.read(ctx, func() ch.Query {
		norm.Groups = nil
		var layer, yearGroup proto.ColUInt8
		key, subject := newWordResult(), newWordResult()
		bins, counts, variances := new(proto.ColUInt16).Array(), new(proto.ColInt64).Array(), new(proto.ColInt64).Array()
		return ch.Query{
			Body:       "SELECT toUInt8(layer) AS layer_number, key, subject, year_group, bins, counts, variances FROM " + s.table("frozen_norms") + whereNorm,
			Parameters: ofNorm(&norm.NormVersion),
			Result: proto.Results{{Name: "layer_number", Data: &layer}, {Name: "key", Data: key}, {Name: "subject", Data: subject},
				{Name: "year_group", Data: &yearGroup}, {Name: "bins", Data: bins}, {Name: "counts", Data: counts}, {Name: "variances", Data: variances}},
			OnResult: func(_ context.Context, block proto.Block) error {
				if block.Rows == 0 {
					return nil
				}
				keys, subjects := key.appendTo(nil), subject.appendTo(nil)
				for i := range block.Rows {
					norm.Groups = append(norm.Groups, transform.NormGroup{Layer: transform.Layer(layer[i]), Key: keys[i], Subject: subjects[i],
						YearGroup: yearGroup[i], Bins: bins.Row(i), Counts: counts.Row(i), Variances: variances.Row(i)})
				}
				return nil
			},
		}
	})
}

func (s *Store) loadGrowth(ctx context.Context, norm *transform.FrozenNorm) error {
	return s.read(ctx, func() ch.Query {
		norm.Growth = nil
		var layer, yearGroup, weeks proto.ColUInt8
		key := newWordResult()
		var start proto.ColInt16
		var learners proto.ColUInt64
		var median, low, high proto.ColFloat64
		return ch.Query{
			Body: "SELECT toUInt8(layer) AS layer_number, key, year_group, start, weeks, learners, median, ifNull(low, nan) AS lower, ifNull(high, nan) AS upper FROM " +
				s.table("norm_growth") + whereNorm + ", start, weeks",
			Parameters: ofNorm(&norm.NormVersion),
			Result: proto.Results{{Name: "layer_number", Data: &layer}, {Name: "key", Data: key}, {Name: "year_group", Data: &yearGroup},
				{Name: "start", Data: &start}, {Name: "weeks", Data: &weeks}, {Name: "learners", Data: &learners},
				{Name: "median", Data: &median}, {Name: "lower", Data: &low}, {Name: "upper", Data: &high}},
			OnResult: func(_ context.Context, block proto.Block) error {
				if block.Rows == 0 {
					return nil
				}
				keys := key.appendTo(nil)
				for i := range block.Rows {
					norm.Growth = append(norm.Growth, transform.GrowthCell{Layer: transform.Layer(layer[i]), Key: keys[i], YearGroup: yearGroup[i],
						Start: start[i], Weeks: weeks[i], Learners: int64(learners[i]), Median: median[i], Low: low[i], High: high[i]})
				}
				return nil
			},
		}
	})
}

// SaveNorm writes a frozen norm: its groups and growth first, then the entry that
// makes it count. What a run that died has left under the number is taken back
// first. It may be called again with the same norm.
func (s *Store) SaveNorm(ctx context.Context, norm *transform.FrozenNorm) error {
	if norm.Version == 0 || norm.TakenAt.IsZero() {
		return errors.New("save norm: version and time are needed")
	}
	fail := func(err error) error { return fmt.Errorf("save norm %s version %d: %w", norm.Name, norm.Version, err) }
	for _, table := range []string{"frozen_norms", "norm_growth"} {
		err := s.pool.do(ctx, ch.Query{
			Body:       "DELETE FROM " + s.table(table) + " WHERE name = {name:String} AND version = {version:UInt32}",
			Parameters: ofNorm(&norm.NormVersion),
			Settings:   []ch.Setting{{Key: "lightweight_deletes_sync", Value: "2", Important: true}},
		})
		if err != nil {
			return fail(err)
		}
	}
	for _, b := range []*block{s.groupsBlock(norm), s.growthBlock(norm), s.versionBlock(&norm.NormVersion)} {
		if b.rows() == 0 {
			continue
		}
		if err := s.pool.do(ctx, ch.Query{Body: b.body, Input: b.input}); err != nil {
			return fail(err)
		}
	}
	return nil
}

func (s *Store) groupsBlock(norm *transform.FrozenNorm) *block {
	layer := enumColumn{is: typeLayer}
	var name, key, subject wordColumn
	name.init()
	key.init()
	subject.init()
	var version proto.ColUInt32
	var yearGroup proto.ColUInt8
	var learners proto.ColUInt64
	bins, counts, variances := new(proto.ColUInt16).Array(), new(proto.ColInt64).Array(), new(proto.ColInt64).Array()
	for i := range norm.Groups {
		g := &norm.Groups[i]
		name.appendWord(norm.Name)
		version = append(version, norm.Version)
		layer.ColUInt8 = append(layer.ColUInt8, uint8(g.Layer))
		key.appendWord(g.Key)
		subject.appendWord(g.Subject)
		yearGroup = append(yearGroup, g.YearGroup)
		total := int64(0)
		for _, n := range g.Counts {
			total += n
		}
		learners = append(learners, uint64(total))
		bins.Append(g.Bins)
		counts.Append(g.Counts)
		variances.Append(g.Variances)
	}
	b := newBlock(s.config.Database, "frozen_norms", column("name", &name), column("version", &version), column("layer", &layer),
		column("key", &key), column("subject", &subject), column("year_group", &yearGroup), column("learners", &learners),
		column("bins", bins), column("counts", counts), column("variances", variances))
	return &b
}

func (s *Store) growthBlock(norm *transform.FrozenNorm) *block {
	layer := enumColumn{is: typeLayer}
	var name, key wordColumn
	name.init()
	key.init()
	var version proto.ColUInt32
	var yearGroup, weeks proto.ColUInt8
	var start proto.ColInt16
	var learners proto.ColUInt64
	var median proto.ColFloat64
	low, high := new(proto.ColFloat64).Nullable(), new(proto.ColFloat64).Nullable()
	quartile := func(c *proto.ColNullable[float64], value float64) {
		c.Append(proto.Nullable[float64]{Set: !math.IsNaN(value), Value: value})
	}
	for i := range norm.Growth {
		c := &norm.Growth[i]
		name.appendWord(norm.Name)
		version = append(version, norm.Version)
		layer.ColUInt8 = append(layer.ColUInt8, uint8(c.Layer))
		key.appendWord(c.Key)
		yearGroup = append(yearGroup, c.YearGroup)
		start = append(start, c.Start)
		weeks = append(weeks, c.Weeks)
		learners = append(learners, uint64(c.Learners))
		median = append(median, c.Median)
		quartile(low, c.Low)
		quartile(high, c.High)
	}
	b := newBlock(s.config.Database, "norm_growth", column("name", &name), column("version", &version), column("layer", &layer),
		column("key", &key), column("year_group", &yearGroup), column("start", &start), column("weeks", &weeks), column("learners", &learners),
		column("median", &median), column("low", low), column("high", high))
	return &b
}

func (s *Store) versionBlock(v *transform.NormVersion) *block {
	var name, moment wordColumn
	name.init()
	moment.init()
	name.appendWord(v.Name)
	moment.appendWord(v.Moment)
	asOf := new(proto.ColDate32)
	asOf.Append(v.AsOf.Date())
	takenAt := millisColumn{ColInt64: proto.ColInt64{v.TakenAt.UnixMilli()}}
	digest := new(proto.ColStr)
	digest.Append(v.Digest)
	b := newBlock(s.config.Database, "norm_versions", column("name", &name), column("version", &proto.ColUInt32{v.Version}),
		column("school_year", &proto.ColUInt16{uint16(v.SchoolYear)}), column("moment", &moment), column("as_of", asOf),
		column("taken_at", &takenAt), column("learners", &proto.ColUInt64{uint64(v.Learners)}),
		column("norm_groups", &proto.ColUInt32{uint32(v.GroupCount)}), column("growth_cells", &proto.ColUInt32{uint32(v.CellCount)}),
		column("digest", digest))
	return &b
}
