package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// apiClient calls the public API with one key.
type apiClient struct {
	base, key string
	http      *http.Client
}

func newAPIClient(base, key string) *apiClient {
	return &apiClient{base: base, key: key, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
}

// SkillReply is a skill in logits with its standard error and 90 % band.
type SkillReply struct {
	Value float64 `json:"value"`
	SE    float64 `json:"se"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// NextExercise is the reply of GET /v1/learners/{token}/next-exercise.
type NextExercise struct {
	Exercise string     `json:"exercise"`
	Goal     string     `json:"goal"`
	Subject  string     `json:"subject"`
	Expected float64    `json:"expected"`
	Target   float64    `json:"target"`
	Random   bool       `json:"random"`
	Reason   string     `json:"reason"`
	Skill    SkillReply `json:"skill"`
	Snapshot uint64     `json:"snapshot"`
}

// exerciseReply is one exercise of GET /v1/exercises; null means not shown.
type exerciseReply struct {
	ID         string   `json:"id"`
	Difficulty *float64 `json:"difficulty"`
	SE         *float64 `json:"se"`
	Answers    *int64   `json:"answers"`
}

// percentileReply is one line of GET /v1/learners/{token}/percentiles.
type percentileReply struct {
	Layer      string     `json:"layer"`
	Subject    *string    `json:"subject"`
	Goal       *string    `json:"goal"`
	Answers    int64      `json:"answers"`
	Skill      SkillReply `json:"skill"`
	Percentile *float64   `json:"percentile"`
	Low        *float64   `json:"low"`
	High       *float64   `json:"high"`
	Learners   *int64     `json:"learners"`
}

// overallAnswers is the number of answers that the served skill is made of.
func overallAnswers(lines []percentileReply) int64 {
	for i := range lines {
		if lines[i].Layer == "overall" {
			return lines[i].Answers
		}
	}
	return 0
}

// pseudonyms asks for the tokens of learners of one school; "" for one that is
// not known.
func (c *apiClient) pseudonyms(ctx context.Context, p *Population, school int, learners []int, scheme string) ([]string, error) {
	type identifier struct {
		Scheme string `json:"scheme"`
		Value  string `json:"value"`
	}
	request := struct {
		School      string       `json:"school"`
		Identifiers []identifier `json:"identifiers"`
	}{School: p.Schools[school].Code}
	for _, l := range learners {
		request.Identifiers = append(request.Identifiers, identifier{scheme, p.Identifier(l, scheme)})
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode identifiers: %w", err)
	}
	var reply struct{ Tokens []*string }
	if err := c.call(ctx, http.MethodPost, "/v1/pseudonyms", body, &reply); err != nil {
		return nil, err
	}
	if len(reply.Tokens) != len(learners) {
		return nil, fmt.Errorf("post /v1/pseudonyms: %d tokens for %d identifiers", len(reply.Tokens), len(learners))
	}
	tokens := make([]string, len(learners))
	for i, t := range reply.Tokens {
		if t != nil {
			tokens[i] = *t
		}
	}
	return tokens, nil
}

func (c *apiClient) percentiles(ctx context.Context, token string) ([]percentileReply, error) {
	var reply struct{ Percentiles []percentileReply }
	err := c.call(ctx, http.MethodGet, "/v1/learners/"+token+"/percentiles", nil, &reply)
	return reply.Percentiles, err
}

func (c *apiClient) nextExercise(ctx context.Context, token, goal string) (NextExercise, error) {
	path := "/v1/learners/" + token + "/next-exercise"
	if goal != "" {
		path += "?goal=" + url.QueryEscape(goal)
	}
	var reply NextExercise
	err := c.call(ctx, http.MethodGet, path, nil, &reply)
	return reply, err
}

// exercises reads all pages of a goal.
func (c *apiClient) exercises(ctx context.Context, goal string) ([]exerciseReply, error) {
	var all []exerciseReply
	query := url.Values{"goal": {goal}, "limit": {"1000"}}
	for {
		var reply struct {
			Exercises []exerciseReply
			Next      *string
		}
		if err := c.call(ctx, http.MethodGet, "/v1/exercises?"+query.Encode(), nil, &reply); err != nil {
			return nil, err
		}
		all = append(all, reply.Exercises...)
		if reply.Next == nil {
			return all, nil
		}
		query.Set("after", *reply.Next)
	}
}

// call makes a request and decodes its JSON reply. The error of another status
// than 200 is a *statusError.
func (c *apiClient) call(ctx context.Context, method, path string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+c.key)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	route, _, _ := bytes.Cut([]byte(path), []byte("?"))
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, route, err)
	}
	if response.StatusCode != http.StatusOK {
		return &statusError{method + " " + string(route), response.StatusCode, problemTitle(reply)}
	}
	if err := json.Unmarshal(reply, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, route, err)
	}
	return nil
}

// statusError is a reply other than 200.
type statusError struct {
	request string
	status  int
	problem string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: status %d: %s", e.request, e.status, e.problem)
}

// notYet tells whether an error says that the system is still catching up, or
// that the caller has to wait.
func notYet(err error) bool {
	var e *statusError
	return errors.As(err, &e) && (e.status == http.StatusNotFound || e.status == http.StatusServiceUnavailable || e.status == http.StatusTooManyRequests)
}
