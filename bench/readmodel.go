package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
)

// A country in the read model: every learner has begun this many of the goals.
const (
	modelExercises = 50_000
	modelGoals     = 60
	goalsBegun     = 5
	modelRequests  = 10_000 // next exercises asked for per second …
	modelAnswers   = 20_000 // … while the states of so many answers per second stream in
	modelDuration  = 5 * time.Second
	modelWorkers   = 64
)

// readModel measures the memory of the read model, and the time in the handler of
// next-exercise while answers stream in. Nothing else runs: no engine, no network.
func (r *runner) readModel(ctx context.Context) (err error) {
	m, err := newModelMeasure(r.config.ModelLearners)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(m.directory)) }()
	r.results.add("read_model_memory", m.bytes/1e6, "MB",
		fmt.Sprintf("heap of the read model of %d learners with %d goals each and %d exercises", m.learners, goalsBegun, modelExercises))
	r.results.add("read_model_memory_per_learner_and_goal", m.bytes/float64(m.learners*goalsBegun), "bytes", "that, divided")
	took, late, err := m.ask(ctx, modelRequests, int(modelRequests*modelDuration/time.Second))
	if err != nil {
		return err
	}
	p50, p99, p999 := took.quantiles()
	r.results.add("next_exercise_in_server_p50", p50, "ms",
		fmt.Sprintf("in the handler of next-exercise, of that model, %d requests a second while the states of %d answers a second stream in", modelRequests, modelAnswers))
	r.results.add("next_exercise_in_server_p99", p99, "ms", "")
	r.results.add("next_exercise_in_server_p999", p999, "ms", "")
	_, p99, _ = late.quantiles()
	r.results.add("next_exercise_in_server_late_p99", p99, "ms", "from when the request was due until its reply was ready: with the timers of the measure, and what the cores lack")
	return nil
}

// modelMeasure is a read model with a handler before it.
type modelMeasure struct {
	directory string // of the API keys
	model     *query.ReadModel
	handler   http.Handler
	key       string
	learners  int
	bytes     float64
	at        int64
	random    *rand.Rand
}

// newModelMeasure fills a read model with learners and exercises.
func newModelMeasure(learners int) (*modelMeasure, error) {
	directory, err := os.MkdirTemp("", "leerstroom-model-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for keys: %w", err)
	}
	m := &modelMeasure{directory: directory, learners: learners, at: time.Now().UnixMilli(), random: rand.New(rand.NewPCG(1, 0x3d))}
	before := heapBytes()
	m.model = query.NewReadModel(query.Config{Seed: 1})
	m.model.ApplySnapshot(1, m.exercises())
	rows := &transform.SkillRows{}
	for n := range learners {
		m.appendLearner(rows, n, answer.At(int64(n+1), 0))
		if rows.Len() >= 10_000 || n == learners-1 {
			m.model.ApplySkills(rows)
			rows.Reset()
		}
	}
	m.bytes = float64(heapBytes()) - float64(before)
	keys, err := access.Open(filepath.Join(directory, "apikeys.json"))
	if err == nil {
		m.key, _, err = keys.Create(access.Scope{Role: access.RoleEngine, Engine: "bench"})
	}
	if err == nil {
		m.handler, err = query.NewHandler(query.HandlerConfig{Model: m.model, Keys: keys, Identities: sameTokens(),
			Audit: func(audit.Record) error { return nil }})
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	return m, nil
}

var errNotServed = errors.New("only next exercises are measured")

// sameTokens are identities whose tokens for an engine are those for analytics: the
// registry is measured by itself.
func sameTokens() query.Identities {
	return query.Identities{
		Learner: func(_ context.Context, _ keyring.Purpose, token [16]byte) ([]answer.Token, string, error) {
			return []answer.Token{answer.MintToken(token)}, modelSchool, nil
		},
		Tokens: func(context.Context, keyring.Purpose, string, []query.Identifier) ([]answer.Token, error) {
			return nil, errNotServed
		},
		Present: func(context.Context, keyring.Purpose, string, []answer.Token) ([]answer.Token, error) {
			return nil, errNotServed
		},
		Names: func(context.Context, keyring.Purpose, string, string) ([]pseudonymize.NamedLearner, error) {
			return nil, errNotServed
		},
	}
}

const modelSchool = "99ZZ00"

// modelToken is spread as keyed digests are.
func modelToken(n int) answer.Token {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], uint64(n+1)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	return answer.MintToken(b)
}

func modelGoal(n int) string { return fmt.Sprintf("doel-%02d", n%modelGoals) }

func (m *modelMeasure) exercises() *transform.SnapshotRows {
	rows := &transform.SnapshotRows{}
	for i := range modelExercises {
		rows.Component = append(rows.Component, transform.ComponentItem)
		rows.Key = append(rows.Key, fmt.Sprintf("uitgever:opgave-%06d", i))
		rows.Goal = append(rows.Goal, modelGoal(i))
		rows.Subject = append(rows.Subject, "rekenen")
		rows.Mean, rows.Variance = append(rows.Mean, m.random.NormFloat64()-1), append(rows.Variance, 0.05)
		rows.Gradient, rows.Information = append(rows.Gradient, 0), append(rows.Information, 0)
		rows.Answers, rows.ScoreSum = append(rows.Answers, 500), append(rows.ScoreSum, 350<<32)
	}
	return rows
}

// appendLearner appends all layers of a learner.
func (m *modelMeasure) appendLearner(rows *transform.SkillRows, n int, position answer.Position) {
	m.appendLayer(rows, n, position, transform.LayerOverall, "", 0.1)
	m.appendLayer(rows, n, position, transform.LayerSubject, "rekenen", 0.1)
	for g := range goalsBegun {
		m.appendLayer(rows, n, position, transform.LayerGoal, modelGoal(n+g), 0.2)
	}
}

func (m *modelMeasure) appendLayer(rows *transform.SkillRows, n int, position answer.Position, layer transform.Layer, key string, variance float64) {
	subject, recent := "rekenen", []uint64(nil)
	if layer == transform.LayerOverall {
		subject = ""
		for i := range transform.MaxRecent {
			recent = append(recent, uint64(n+i)*0x9e3779b97f4a7c15)
		}
	}
	rows.Learner, rows.School = append(rows.Learner, modelToken(n)), append(rows.School, modelSchool)
	rows.Group, rows.YearGroup = append(rows.Group, fmt.Sprint(n/25)), append(rows.YearGroup, uint8(3+n%6))
	rows.KeyEpoch, rows.Layer = append(rows.KeyEpoch, 1), append(rows.Layer, layer)
	rows.Key, rows.Subject = append(rows.Key, key), append(rows.Subject, subject)
	rows.Mean, rows.Variance = append(rows.Mean, m.random.NormFloat64()*math.Sqrt(variance)), append(rows.Variance, variance)
	rows.Answers, rows.LastAt = append(rows.Answers, 30), append(rows.LastAt, m.at)
	rows.FastMean, rows.SlowMean = append(rows.FastMean, 0.7), append(rows.SlowMean, 0.7)
	rows.LastScore, rows.Position = append(rows.LastScore, 1), append(rows.Position, position)
	rows.Recent = append(rows.Recent, recent)
}

// ask asks for next exercises at moments set beforehand, and returns how long each
// was in the handler and how long after its moment the reply was ready, in
// milliseconds.
func (m *modelMeasure) ask(ctx context.Context, perSecond, total int) (took, late latencies, err error) {
	took, late = make(latencies, total), make(latencies, total)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	pouring, asking := errgroup.Group{}, errgroup.Group{}
	pouring.Go(func() error { m.pour(ctx); return nil })
	var next atomic.Int64
	start := time.Now().Add(10 * time.Millisecond)
	for range modelWorkers {
		asking.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= total {
					return nil
				}
				due := start.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
				if err := sleep(ctx, time.Until(due)); err != nil {
					return err
				}
				spent, err := m.askOnce(ctx, i*97%m.learners)
				if err != nil {
					return err
				}
				took[i], late[i] = spent.Seconds()*1e3, time.Since(due).Seconds()*1e3
			}
		})
	}
	err = asking.Wait()
	stop()
	return took, late, errors.Join(err, pouring.Wait())
}

func (m *modelMeasure) askOnce(ctx context.Context, learner int) (time.Duration, error) {
	url := "/v1/learners/" + modelToken(learner).String() + "/next-exercise?goal=" + modelGoal(learner)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+m.key)
	reply := &discardReply{header: http.Header{}, status: http.StatusOK}
	began := time.Now()
	m.handler.ServeHTTP(reply, request)
	spent := time.Since(began)
	if reply.status != http.StatusOK {
		return 0, fmt.Errorf("next exercise: status %d", reply.status)
	}
	return spent, nil
}

// pour applies the states of modelAnswers answers a second until ctx ends.
func (m *modelMeasure) pour(ctx context.Context) {
	const every = 10 * time.Millisecond
	rows := &transform.SkillRows{}
	for offset := int64(1 << 30); sleep(ctx, every) == nil; offset++ {
		rows.Reset()
		for i := range int(modelAnswers * every / time.Second) {
			n := int(offset*211+int64(i)*97) % m.learners
			position := answer.At(offset, i)
			m.appendLayer(rows, n, position, transform.LayerOverall, "", 0.1)
			m.appendLayer(rows, n, position, transform.LayerSubject, "rekenen", 0.1)
			m.appendLayer(rows, n, position, transform.LayerGoal, modelGoal(n), 0.2)
		}
		m.model.ApplySkills(rows)
	}
}

// discardReply is a ResponseWriter that costs nothing.
type discardReply struct {
	header http.Header
	status int
}

func (d *discardReply) Header() http.Header         { return d.header }
func (d *discardReply) Write(p []byte) (int, error) { return len(p), nil }
func (d *discardReply) WriteHeader(status int)      { d.status = status }
