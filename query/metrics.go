package query

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the HTTP interface. Labels are routes and classes of status, never
// a value of a request.
type metrics struct {
	duration *prometheus.HistogramVec
}

func newMetrics(registry *prometheus.Registry, model *ReadModel) (*metrics, error) {
	m := &metrics{duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "leerstroom_query_request_seconds",
		Help:    "Time to answer a request.",
		Buckets: []float64{.0001, .00025, .0005, .001, .002, .005, .01, .05, .25, 1, 5},
	}, []string{"route", "status"})}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "leerstroom_query_" + name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		m.duration,
		gauge("learners", "Learners in the read model.", func() float64 { return float64(model.Learners()) }),
		gauge("exercises", "Exercises in the read model.", func() float64 { return float64(model.Items()) }),
		gauge("snapshot_version", "Newest item snapshot in the read model.", func() float64 { return float64(model.SnapshotVersion()) }),
		gauge("ready", "1 when the read model has caught up.", func() float64 {
			if model.Ready() {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "leerstroom_query_skills_messages_total", Help: "Messages of the topic skills that were applied."},
			func() float64 { return float64(model.skillMessages.Load()) }),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// routeMetrics has the observers of a route by class of status.
type routeMetrics [6]prometheus.Observer

func (m *metrics) route(pattern string) *routeMetrics {
	out := &routeMetrics{}
	for class := range out {
		out[class] = m.duration.WithLabelValues(pattern, strconv.Itoa(class)+"xx")
	}
	return out
}

func (r *routeMetrics) done(status int, took time.Duration) {
	r[min(max(status/100, 0), len(r)-1)].Observe(took.Seconds())
}
