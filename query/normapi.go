package query

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/leerstroom/leerstroom/transform"
)

// normParams are the query parameters that choose a norm.
var normParams = []string{"norm", "moment", "version"}

var errUnknownNorm = refuse(http.StatusNotFound, "unknown_norm", "no such norm has been frozen")

// norm reads the choice of a norm: a name (norm, perhaps with version), the
// newest of a moment, or neither for the newest valid one.
func (h *Handler) norm(c *call) (NormChoice, error) {
	name, moment := c.params.name("norm"), c.params.name("moment")
	version := c.params.integer("version", 1, math.MaxInt32, 0)
	calendar := &h.model.config.Calendar
	switch {
	case name != "" && moment != "":
		c.params.fail("moment", "give norm or moment, not both")
	case version > 0 && (name == "" || name == liveNorm):
		c.params.fail("version", "needs norm with the name of a frozen one")
	case name != "" && name != liveNorm:
		if _, err := calendar.Occasion(name); err != nil {
			c.params.fail("norm", "must be live, or a school year and moment such as 2026-2027-M")
		}
	case moment != "" && !slices.ContainsFunc(calendar.Moments, func(m transform.Moment) bool { return m.Name == moment }):
		c.params.fail("moment", "must be a moment of the calendar, such as M")
	}
	if err := c.params.failed(); err != nil {
		return NormChoice{}, err
	}
	choice, ok := h.model.DefaultNorm(), true
	switch {
	case name == liveNorm:
		choice = NormChoice{}
	case name != "":
		choice, ok = h.model.NormNamed(name, uint32(version))
	case moment != "":
		choice, ok = h.model.NormAt(moment)
	}
	if !ok {
		return NormChoice{}, errUnknownNorm
	}
	return choice, nil
}

// normReply quotes a norm.
type normReply struct {
	Kind       string  `json:"kind"`
	Name       string  `json:"name"`
	Version    uint64  `json:"version"`
	SchoolYear string  `json:"school_year"`
	Moment     *string `json:"moment"`
	AsOf       string  `json:"as_of"`
}

func newNormReply(n *NormUsed) normReply {
	out := normReply{Kind: "live", Name: n.Name, Version: n.Version, SchoolYear: n.SchoolYear.String(), AsOf: n.AsOf.String()}
	if n.Frozen {
		out.Kind, out.Moment = "frozen", &n.Moment
	}
	return out
}

type distributionReply struct {
	Goal      string       `json:"goal"`
	YearGroup int          `json:"year_group"`
	Norm      normReply    `json:"norm"`
	Learners  int64        `json:"learners"`
	Skill     [99]*float64 `json:"skill"`
}

func (h *Handler) getPercentiles(c *call) error {
	goal := c.params.required("goal")
	yearGroup := c.params.integer("year_group", 1, yearGroups-1, 0)
	if yearGroup == 0 {
		c.params.fail("year_group", "required")
	}
	choice, err := h.norm(c)
	if err != nil {
		return err
	}
	media := negotiate(c.r.Header.Get("Accept"), mediaJSON, mediaCSV, mediaArrow)
	if media == "" {
		return refuse(http.StatusNotAcceptable, "not_acceptable", "offered are "+mediaJSON+", "+mediaCSV+" and "+mediaArrow)
	}
	d, ok := h.model.Distribution(goal, uint8(yearGroup), choice)
	if !ok {
		return errNotFound()
	}
	reply := distributionReply{Goal: goal, YearGroup: yearGroup, Norm: newNormReply(&d.Norm), Learners: sizeShown(d.Learners), Skill: d.told()}
	c.w.Header().Set("Vary", "Accept")
	c.w.Header().Set("Leerstroom-Learners", strconv.FormatInt(reply.Learners, 10))
	c.w.Header().Set("Leerstroom-Norm", reply.Norm.text())
	switch media {
	case mediaCSV:
		return c.send("text/csv; charset=utf-8", reply.csv())
	case mediaArrow:
		body, err := reply.arrow()
		if err != nil {
			return err
		}
		return c.send(mediaArrow, body)
	}
	return c.sendJSON(reply)
}

// text names a norm in one word: its name and version.
func (n *normReply) text() string { return n.Name + "." + strconv.FormatUint(n.Version, 10) }

func (n *distributionReply) csv() []byte {
	dst := []byte("percentile,skill\n")
	for i, skill := range n.Skill {
		dst = strconv.AppendInt(dst, int64(i+1), 10)
		dst = append(dst, ',')
		if skill != nil {
			dst = strconv.AppendFloat(dst, *skill, 'f', -1, 64)
		}
		dst = append(dst, '\n')
	}
	return dst
}

func (n *distributionReply) arrow() ([]byte, error) {
	metadata := arrow.NewMetadata(
		[]string{"goal", "year_group", "learners", "norm"},
		[]string{n.Goal, strconv.Itoa(n.YearGroup), strconv.FormatInt(n.Learners, 10), n.Norm.text()},
	)
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "percentile", Type: arrow.PrimitiveTypes.Uint8},
		{Name: "skill", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	}, &metadata)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer builder.Release()
	for i, skill := range n.Skill {
		builder.Field(0).(*array.Uint8Builder).Append(uint8(i + 1))
		values := builder.Field(1).(*array.Float64Builder)
		if skill == nil {
			values.AppendNull()
			continue
		}
		values.Append(*skill)
	}
	record := builder.NewRecord()
	defer record.Release()
	var out bytes.Buffer
	writer := ipc.NewWriter(&out, ipc.WithSchema(schema))
	if err := writer.Write(record); err != nil {
		return nil, fmt.Errorf("write percentiles as arrow: %w", err)
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("write percentiles as arrow: %w", err)
	}
	return out.Bytes(), nil
}
