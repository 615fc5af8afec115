package query

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

type normReply struct {
	Goal      string      `json:"goal"`
	YearGroup int         `json:"year_group"`
	Learners  int64       `json:"learners"`
	Skill     [99]float64 `json:"skill"`
}

func (h *Handler) getPercentiles(c *call) error {
	goal := c.params.required("goal")
	yearGroup := c.params.integer("year_group", 1, yearGroups-1, 0)
	if yearGroup == 0 {
		c.params.fail("year_group", "required")
	}
	if err := c.params.failed(); err != nil {
		return err
	}
	media := negotiate(c.r.Header.Get("Accept"), mediaJSON, mediaCSV, mediaArrow)
	if media == "" {
		return refuse(http.StatusNotAcceptable, "not_acceptable", "offered are "+mediaJSON+", "+mediaCSV+" and "+mediaArrow)
	}
	d, ok := h.model.Distribution(goal, uint8(yearGroup))
	if !ok {
		return errNotFound()
	}
	reply := normReply{Goal: goal, YearGroup: yearGroup, Learners: d.Learners}
	for i, skill := range d.Skill {
		reply.Skill[i] = rounded(skill, 1e4)
	}
	c.w.Header().Set("Vary", "Accept")
	c.w.Header().Set("Leerstroom-Learners", strconv.FormatInt(d.Learners, 10))
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

func (n *normReply) csv() []byte {
	dst := []byte("percentile,skill\n")
	for i, skill := range n.Skill {
		dst = strconv.AppendInt(dst, int64(i+1), 10)
		dst = append(dst, ',')
		dst = strconv.AppendFloat(dst, skill, 'f', -1, 64)
		dst = append(dst, '\n')
	}
	return dst
}

func (n *normReply) arrow() ([]byte, error) {
	metadata := arrow.NewMetadata(
		[]string{"goal", "year_group", "learners"},
		[]string{n.Goal, strconv.Itoa(n.YearGroup), strconv.FormatInt(n.Learners, 10)},
	)
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "percentile", Type: arrow.PrimitiveTypes.Uint8},
		{Name: "skill", Type: arrow.PrimitiveTypes.Float64},
	}, &metadata)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer builder.Release()
	for i, skill := range n.Skill {
		builder.Field(0).(*array.Uint8Builder).Append(uint8(i + 1))
		builder.Field(1).(*array.Float64Builder).Append(skill)
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
