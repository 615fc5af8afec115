package export_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/store/export"
)

// manyDifficulties makes rows whose texts and numbers are unknown, empty or zero
// now and then, and whose goals are few at first and then all different.
func manyDifficulties(rows int) []export.Difficulty {
	random := rand.New(rand.NewPCG(58, 1))
	text := func(s string) *string { return &s }
	out := make([]export.Difficulty, rows)
	for i := range out {
		d := &out[i]
		d.Publisher, d.Exercise = []string{"bingel", "delta"}[2*i/rows], fmt.Sprintf("opgave-%06d", i)
		switch random.IntN(5) {
		case 0:
		case 1:
			d.Goal, d.Subject = text(""), text("")
		default:
			d.Goal, d.Subject = text(fmt.Sprint("doel-", random.IntN(3))), text("rekenen")
			if i > rows/2 {
				d.Goal = text(fmt.Sprintf("doel-%040d", i))
			}
		}
		if random.IntN(4) > 0 { // else all of these are zero
			d.Difficulty, d.StandardError = random.NormFloat64(), random.Float64()
			d.Answers, d.Learners, d.Schools, d.ProportionCorrect = random.Int64N(1e12), random.Int64N(1e6), random.Int64N(1e4), random.Float64()
		}
	}
	return out
}

// TestManyRowGroups writes a file of several row groups, in some of which a
// dictionary is given up because it becomes too large, and reads it back with the
// library and with ClickHouse, whose reader is another.
func TestManyRowGroups(t *testing.T) {
	t.Parallel()
	want := manyDifficulties(230_000)
	var content bytes.Buffer
	must(t, export.WriteRows(&content, want))
	file, err := parquet.OpenFile(bytes.NewReader(content.Bytes()), int64(content.Len()))
	must(t, err)
	groups := file.Metadata().RowGroups
	if len(groups) != 3 || groups[0].NumRows != 100_000 || groups[2].NumRows != 30_000 {
		t.Errorf("%d row groups, the first of %d rows, want 100,000, 100,000 and 30,000", len(groups), groups[0].NumRows)
	}
	kept, fallen := 0, 0
	for _, g := range groups {
		plain, dictionary := goalPages(t, &g)
		if dictionary && !plain {
			kept++
		}
		if plain {
			fallen++
		}
	}
	if kept == 0 || fallen == 0 {
		t.Errorf("the dictionary of goals is kept in %d groups and given up in %d, want some of each", kept, fallen)
	}
	got, err := parquet.Read[export.Difficulty](bytes.NewReader(content.Bytes()), int64(content.Len()))
	must(t, err)
	compareRows(t, "parquet-go", got, want)
	compareRows(t, "ClickHouse", readWithClickHouse(t, content.Bytes()), want)
}

// goalPages tells which kinds of data pages the column of goals has in a group.
func goalPages(t *testing.T, group *format.RowGroup) (plain, dictionary bool) {
	t.Helper()
	for _, column := range group.Columns {
		if column.MetaData.PathInSchema[0] != "goal" {
			continue
		}
		for _, s := range column.MetaData.EncodingStats {
			if s.PageType == format.DictionaryPage || s.Count == 0 {
				continue
			}
			if s.Encoding == format.Plain {
				plain = true
			} else {
				dictionary = true
			}
		}
	}
	if !plain && !dictionary {
		t.Error("the file does not say how goals are encoded")
	}
	return plain, dictionary
}

func compareRows(t *testing.T, reader string, got, want []export.Difficulty) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s reads %d rows, want %d", reader, len(got), len(want))
	}
	for i := range want {
		if !sameRow(&got[i], &want[i]) || !sameText(got[i].Goal, want[i].Goal) || !sameText(got[i].Subject, want[i].Subject) {
			t.Fatalf("%s reads row %d as %+v, want %+v", reader, i, got[i], want[i])
		}
	}
}

func sameText(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

// readWithClickHouse sends a file to ClickHouse, which reads it into a table.
func readWithClickHouse(t *testing.T, content []byte) []export.Difficulty {
	t.Helper()
	connection, database := enginetest.ClickHouse(t)
	enginetest.Execute(t, connection, "CREATE TABLE "+database+`.handed_over (publisher String, exercise String, goal Nullable(String), subject Nullable(String),
		difficulty Float64, standard_error Float64, answers Int64, learners Int64, schools Int64, proportion_correct Float64) ENGINE = MergeTree ORDER BY exercise`)
	must(t, postParquet(t.Context(), connection, "INSERT INTO "+database+".handed_over FORMAT Parquet", content))
	db := clickhouse.OpenDB(&clickhouse.Options{Addr: connection.Addresses, Auth: clickhouse.Auth{Username: connection.User, Password: connection.Password}})
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+database+".handed_over ORDER BY exercise")
	must(t, err)
	defer rows.Close()
	var out []export.Difficulty
	for rows.Next() {
		var d export.Difficulty
		must(t, rows.Scan(&d.Publisher, &d.Exercise, &d.Goal, &d.Subject, &d.Difficulty, &d.StandardError, &d.Answers, &d.Learners, &d.Schools, &d.ProportionCorrect))
		out = append(out, d)
	}
	must(t, rows.Err())
	return out
}

func postParquet(ctx context.Context, connection engine.ClickHouse, statement string, content []byte) (err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+connection.HTTPAddress+"/?query="+url.QueryEscape(statement), bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("X-ClickHouse-User", connection.User)
	request.Header.Set("X-ClickHouse-Key", connection.Password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("%s: %s", response.Status, text), err)
	}
	return nil
}
