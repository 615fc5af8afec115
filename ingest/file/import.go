package file

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// Config says what to import and where to. The zero value of an optional field
// takes its default.
type Config struct {
	Path      string   // of the file
	Mapping   *Mapping // see LoadMapping
	BaseURL   string   // of the server, such as http://127.0.0.1:8080
	Key       string   // API key of the publisher; see ReadKey
	StatePath string   // of the state file; default: Path + ".import.json"
	ChunkRows int      // rows of a request; default 5,000

	Client   *http.Client   // default: one without a timeout, requests end with ctx
	Logger   *slog.Logger   // default: none
	Progress func(Progress) // after each chunk, from the goroutine of Run; may be nil
	Refused  func(Refusal)  // for each refused row that the server lists, likewise; may be nil
}

// Progress says how far an import is.
type Progress struct {
	Rows     int64 // read and acknowledged, with those of earlier runs
	Accepted int64 // of these
	Refused  int64 // of these
	Read     int64 // of the file, in bytes, or rows of Parquet
	Total    int64 // likewise
}

// Refusal says why a row was refused.
type Refusal struct {
	Row   int64 // from 1, without the header line
	Field string
	Rule  string
}

// maxChunkBytes ends a chunk before it reaches the connector's limits.
const maxChunkBytes = 8 << 20

func (c *Config) setDefaults() {
	if c.StatePath == "" {
		c.StatePath = c.Path + ".import.json"
	}
	if c.ChunkRows <= 0 {
		c.ChunkRows = 5000
	}
	if c.Client == nil {
		c.Client = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	if c.Refused == nil {
		c.Refused = func(Refusal) {}
	}
}

// ReadKey reads an API key from a file, which its group and others must not be
// able to read.
func ReadKey(path string) (string, error) {
	status, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read key file: %w", err)
	}
	if mode := status.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("read key file %s: mode %#o lets others in, want 0600", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read key file: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" || strings.ContainsAny(key, " \r\n\t") {
		return "", fmt.Errorf("read key file %s: want one key", path)
	}
	return key, nil
}

// run is one import at work.
type run struct {
	config   Config
	source   source
	renderer *renderer
	state    state
	path     string // of the URL
	body     []byte
	numbers  []int64 // row of each line in body
	skipped  int     // rows that the mapping refused since the last chunk
	last     int64   // row that was read last
	packed   bytes.Buffer
	gzip     *gzip.Writer
}

// Run imports a file and returns when every row is acknowledged or refused, or ctx
// has ended. Run again, it goes on where it was; a changed file or mapping is an
// error until the state file is removed.
func Run(ctx context.Context, config Config) (Progress, error) {
	config.setDefaults()
	if err := config.Mapping.Validate(); err != nil {
		return Progress{}, fmt.Errorf("import: mapping: %w", err)
	}
	r := &run{config: config, path: "/v1/" + config.Mapping.Kind, gzip: gzip.NewWriter(nil)}
	var err error
	if r.state, err = openState(&config); err != nil {
		return Progress{}, fmt.Errorf("import: %w", err)
	}
	if r.source, err = openSource(config.Mapping, config.Path); err != nil {
		return Progress{}, fmt.Errorf("import: %w", err)
	}
	if r.renderer, err = newRenderer(config.Mapping, r.source.columns()); err == nil {
		err = r.all(ctx)
	}
	if err = errors.Join(err, r.source.close()); err != nil {
		return r.progress(), fmt.Errorf("import %s: %w", config.Path, err)
	}
	return r.progress(), nil
}

func (r *run) progress() Progress {
	read, total := r.source.position()
	return Progress{Rows: r.state.Rows, Accepted: r.state.Accepted, Refused: r.state.Refused, Read: read, Total: total}
}

// all reads the rows that earlier runs did not send, and sends them.
func (r *run) all(ctx context.Context) error {
	for {
		from, err := r.source.next()
		if err == io.EOF {
			break
		}
		bad := errors.Is(err, errBadRow)
		if err != nil && !bad {
			return fmt.Errorf("row %d: %w", r.last+1, err)
		}
		if r.last++; r.last <= r.state.Rows {
			continue
		}
		if bad {
			r.refuse("", errBadRow)
		} else if err := r.render(from); err != nil {
			return err
		}
		if len(r.numbers)+r.skipped >= r.config.ChunkRows || len(r.body) >= maxChunkBytes {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
		if r.last%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if r.last > r.state.Rows {
		return r.flush(ctx)
	}
	r.config.Progress(r.progress())
	return nil
}

// render adds the row to the chunk, or refuses it when the mapping can't.
func (r *run) render(from row) error {
	body, err := r.renderer.append(r.body, from, r.last)
	r.body = body
	var refused *rowError
	if errors.As(err, &refused) {
		r.refuse(refused.field, refused.rule)
		return nil
	}
	if err != nil {
		return fmt.Errorf("row %d: %w", r.last, err)
	}
	r.numbers = append(r.numbers, r.last)
	return nil
}

// refuse counts the row as one that was not sent.
func (r *run) refuse(field string, rule error) {
	r.skipped++
	r.config.Refused(Refusal{Row: r.last, Field: field, Rule: rule.Error()})
}

// flush sends the chunk and records that it is done.
func (r *run) flush(ctx context.Context) error {
	if len(r.numbers) > 0 {
		out, err := r.send(ctx)
		if err != nil {
			return fmt.Errorf("send rows %d to %d: %w", r.numbers[0], r.last, err)
		}
		if out.Accepted+out.RefusedCount != int64(len(r.numbers)) {
			return fmt.Errorf("send rows %d to %d: the server accepts %d and refuses %d of %d lines", r.numbers[0], r.last, out.Accepted, out.RefusedCount, len(r.numbers))
		}
		for _, refused := range out.Refused {
			if refused.Line >= 1 && refused.Line <= len(r.numbers) {
				r.config.Refused(Refusal{Row: r.numbers[refused.Line-1], Field: refused.Field, Rule: refused.Rule})
			}
		}
		r.state.Accepted += out.Accepted
		r.state.Refused += out.RefusedCount
	}
	r.state.Refused += int64(r.skipped)
	r.state.Rows = r.last
	r.body, r.numbers, r.skipped = r.body[:0], r.numbers[:0], 0
	if err := r.state.save(r.config.StatePath); err != nil {
		return err
	}
	r.config.Progress(r.progress())
	return nil
}

// outcome is the connector's reply.
type outcome struct {
	Accepted     int64 `json:"accepted"`
	RefusedCount int64 `json:"refused_count"`
	Refused      []struct {
		Line  int    `json:"line"`
		Field string `json:"field"`
		Rule  string `json:"rule"`
	} `json:"refused"`
	Code string `json:"code"`
}

// errTryAgain marks failures that time may mend.
var errTryAgain = errors.New("try again")

// send posts the chunk until it is acknowledged or refused for good.
func (r *run) send(ctx context.Context) (outcome, error) {
	r.packed.Reset()
	r.gzip.Reset(&r.packed)
	if _, err := r.gzip.Write(r.body); err != nil {
		return outcome{}, err
	}
	if err := r.gzip.Close(); err != nil {
		return outcome{}, err
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		out, after, err := r.post(ctx)
		if !errors.Is(err, errTryAgain) {
			return out, err
		}
		r.config.Logger.WarnContext(ctx, "chunk not acknowledged, trying again", "row", r.numbers[0], "error", err)
		timer := time.NewTimer(max(wait, after))
		select {
		case <-ctx.Done():
			timer.Stop()
			return outcome{}, fmt.Errorf("%w (last attempt: %w)", context.Cause(ctx), err)
		case <-timer.C:
		}
	}
}

// maxReplyBytes bounds what a server may make us read.
const maxReplyBytes = 4 << 20

func (r *run) post(ctx context.Context) (out outcome, after time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(r.config.BaseURL, "/")+r.path, bytes.NewReader(r.packed.Bytes()))
	if err != nil {
		return out, 0, err
	}
	request.Header.Set("Authorization", "Bearer "+r.config.Key)
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("Content-Encoding", "gzip")
	response, err := r.config.Client.Do(request)
	if err != nil {
		return out, 0, fmt.Errorf("%w: %w", errTryAgain, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReplyBytes))
	if err != nil {
		return out, 0, fmt.Errorf("%w: read reply: %w", errTryAgain, err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		out.Code = "no JSON"
	}
	switch {
	case response.StatusCode == http.StatusOK || response.StatusCode == http.StatusUnprocessableEntity && out.Code == "all_refused":
		return out, 0, nil
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // absent: our own pace
		return out, time.Duration(max(0, min(seconds, 300))) * time.Second, fmt.Errorf("%w: %s (%s)", errTryAgain, response.Status, out.Code)
	}
	return out, 0, fmt.Errorf("%s (%s)", response.Status, out.Code)
}
