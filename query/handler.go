package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/audit"
)

// HandlerConfig says what a Handler serves. Model, Keys, Identities
// and Audit are needed.
type HandlerConfig struct {
	Model      *ReadModel
	Keys       *access.Keys
	Identities Identities
	// Authorised tells whether a school allows an engine to process its learners.
	// It is asked beside the scope of the key. nil leaves it to the scope.
	Authorised func(engine, school string) bool
	// Limits of what a key may have turned into tokens or names.
	Limits IdentityLimits
	// History tells where learners stood at a moment. nil means that no history is
	// kept: growth is unknown.
	History History
	// Ready tells why the process is not ready apart from the read model. nil
	// asks nothing.
	Ready func(context.Context) error
	// Registry keeps the metrics and is what /metrics shows. nil makes one.
	Registry *prometheus.Registry
	// Logger receives failures. nil discards.
	Logger *slog.Logger
	// Audit makes the record of a request durable: of each one that turned
	// identifiers into tokens or tokens into names, that showed learners of a
	// group, or that was refused one of these. Without its record a request is not
	// answered.
	Audit func(audit.Record) error
}

// Handler is the HTTP interface. It answers every path it is given; a mux in
// front of it may keep some for others.
type Handler struct {
	config   HandlerConfig
	model    *ReadModel
	mux      *http.ServeMux
	limits   *limits
	replies  replies
	metrics  *metrics
	document document
}

// NewHandler makes a handler.
func NewHandler(config HandlerConfig) (*Handler, error) {
	switch {
	case config.Model == nil:
		return nil, errors.New("serve queries: the read model is missing")
	case config.Keys == nil:
		return nil, errors.New("serve queries: the API keys are missing")
	case config.Identities.Tokens == nil || config.Identities.Learner == nil || config.Identities.Present == nil || config.Identities.Names == nil:
		return nil, errors.New("serve queries: the identities are missing")
	case config.Audit == nil:
		return nil, errors.New("serve queries: the audit log is missing")
	}
	config.Limits.SetDefaults()
	if err := config.Limits.Validate(); err != nil {
		return nil, fmt.Errorf("serve queries: limits: %w", err)
	}
	if config.Registry == nil {
		config.Registry = prometheus.NewRegistry()
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		config: config, model: config.Model, mux: http.NewServeMux(),
		limits: newLimits(config.Limits),
	}
	var err error
	if h.document, err = newDocument(); err != nil {
		return nil, err
	}
	if h.metrics, err = newMetrics(config.Registry, config.Model); err != nil {
		return nil, err
	}
	for _, route := range h.routes() {
		h.mux.Handle(route.pattern, h.endpoint(route))
	}
	return h, nil
}

// route is one operation of the API.
type route struct {
	pattern string        // of http.ServeMux
	roles   []access.Role // that may call it; none = everybody, without a key
	params  []string      // query parameters
	serve   func(*call) error
}

// Roles that see learners, and those that see aggregates only or too.
var (
	learnerRoles   = []access.Role{access.RoleEngine, access.RoleSchool}
	aggregateRoles = []access.Role{access.RoleEngine, access.RoleSchool, access.RoleAnalyst}
	schoolRoles    = []access.Role{access.RoleSchool}
)

func (h *Handler) routes() []route {
	metrics := promhttp.HandlerFor(h.config.Registry, promhttp.HandlerOpts{})
	return []route{
		{"POST /v1/pseudonyms", learnerRoles, nil, h.postPseudonyms},
		{"GET /v1/learners/{token}/next-exercise", learnerRoles, []string{"goal", "quota", "target", "year_group"}, h.getNextExercise},
		{"GET /v1/learners/{token}/percentiles", learnerRoles, append([]string{"levels"}, normParams...), h.getLearnerPercentiles},
		{"GET /v1/learners/{token}/history", learnerRoles, []string{"levels"}, h.getLearnerHistory},
		{"GET /v1/groups/{group}/overview", schoolRoles,
			append([]string{"school", "goal", "since", "levels", "limit", "after"}, normParams...), h.getGroupOverview},
		{"POST /v1/groups/{group}/names", schoolRoles, nil, h.postGroupNames},
		{"GET /v1/exercises", aggregateRoles, []string{"goal", "limit", "after"}, h.listExercises},
		{"GET /v1/exercises/{id}", aggregateRoles, nil, h.getExercise},
		{"GET /v1/percentiles", aggregateRoles, append([]string{"goal", "year_group"}, normParams...), h.getPercentiles},
		{"GET /healthz", nil, nil, h.getHealth},
		{"GET /readyz", nil, nil, h.getReadiness},
		{"GET /openapi.json", nil, nil, h.getOpenapiJSON},
		{"GET /openapi.yaml", nil, nil, h.getOpenapiYAML},
		{"GET /metrics", nil, nil, func(c *call) error { metrics.ServeHTTP(c.w, c.r); return nil }},
	}
}

// call is one request on its way.
type call struct {
	w      http.ResponseWriter
	r      *http.Request
	caller access.Principal
	params *params
}

// refusal is an error that the caller is told.
type refusal struct{ problem access.Problem }

func (r *refusal) Error() string { return r.problem.Code }

func refuse(status int, code, detail string) error {
	return &refusal{access.Problem{Status: status, Code: code, Detail: detail}}
}

// notFound is the one answer to everything that does not exist or that the caller
// may not know to exist.
var notFound = access.Problem{Status: http.StatusNotFound, Code: "not_found"}

func errNotFound() error { return &refusal{notFound} }

// endpoint wraps a route: who calls, may they, is the query string right; then
// the work; then the metrics.
func (h *Handler) endpoint(route route) http.Handler {
	observe := h.metrics.route(route.pattern)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		recorder := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		c := &call{w: recorder, r: r}
		if err := bound(w, r, start); err != nil {
			h.fail(c, err)
		} else if err := h.admit(c, &route); err != nil {
			h.fail(c, err)
		} else if err := route.serve(c); err != nil {
			h.fail(c, err)
		}
		observe.done(recorder.status, time.Since(start))
	})
}

// bound sets how long the connection may take for a request. A connection that
// knows no deadlines has bounds of its own.
func bound(w http.ResponseWriter, r *http.Request, start time.Time) error {
	connection, until := http.NewResponseController(w), start.Add(requestTimeout)
	err := connection.SetWriteDeadline(until)
	if err == nil && r.Body != http.NoBody {
		err = connection.SetReadDeadline(until)
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}

func (h *Handler) admit(c *call, route *route) error {
	if len(route.roles) > 0 {
		caller, err := h.config.Keys.Authenticate(c.r)
		if err != nil {
			return err
		}
		if !slices.Contains(route.roles, caller.Role) {
			return refuse(http.StatusForbidden, "not_allowed", "the key has not the role for this")
		}
		c.caller = caller
	}
	c.params = readParams(c.r, route.params...)
	return c.params.failed()
}

// fail answers with a problem. What is not meant for the caller is logged.
func (h *Handler) fail(c *call, err error) {
	var refused *refusal
	var broken *violation
	switch {
	case errors.As(err, &refused):
		access.WriteProblem(c.w, refused.problem)
	case errors.As(err, &broken):
		access.WriteProblem(c.w, access.Problem{Status: http.StatusBadRequest, Code: "invalid_request", Detail: broken.Error()})
	case errors.Is(err, access.ErrNoKey), errors.Is(err, access.ErrUnknownKey), errors.Is(err, access.ErrUnavailable):
		access.Deny(c.w, err)
	case c.r.Context().Err() != nil:
		// The caller has gone; nobody reads a reply.
	default:
		h.config.Logger.ErrorContext(c.r.Context(), "serving a query failed", "route", c.r.Pattern, "error", err)
		access.WriteProblem(c.w, access.Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", RetryAfter: time.Second})
	}
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := h.mux.Handler(r); pattern == "" {
		h.unrouted(w, r)
		return
	}
	h.mux.ServeHTTP(w, r)
}

// unrouted answers a path or method that no route has, as a problem.
func (h *Handler) unrouted(w http.ResponseWriter, r *http.Request) {
	silent := &discardWriter{header: http.Header{}, status: http.StatusNotFound}
	h.mux.ServeHTTP(silent, r)
	if silent.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", silent.header.Get("Allow"))
		access.WriteProblem(w, access.Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed"})
		return
	}
	access.WriteProblem(w, access.Problem{Status: http.StatusNotFound, Code: "not_found"})
}

// Limits of a connection. Those of the server leave room for a publisher's
// delivery, which waits for Kafka; a query has to be done sooner.
const (
	headerTimeout  = 5 * time.Second
	readTimeout    = time.Minute
	writeTimeout   = 5 * time.Minute
	requestTimeout = 15 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
)

// NewServer makes an HTTP server with time limits around a handler.
func NewServer(address string, handler http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Addr: address, Handler: handler,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

// send writes a reply. Replies about learners are never kept by anybody between.
func (c *call) send(media string, body []byte) error {
	header := c.w.Header()
	header.Set("Content-Type", media)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	// A caller who went away can't be told.
	_, _ = c.w.Write(body)
	return nil
}

// statusWriter remembers the status for the metrics.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// discardWriter keeps the status and headers of a reply and drops its body.
type discardWriter struct {
	header http.Header
	status int
}

func (w *discardWriter) Header() http.Header         { return w.header }
func (w *discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *discardWriter) WriteHeader(status int)      { w.status = status }
