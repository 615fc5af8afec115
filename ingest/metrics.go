package ingest

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leerstroom/leerstroom/ingest/line"
)

// metrics are what a Connector counts. No label holds anything that came in a
// record: kinds, rules and status codes are fixed lists.
type metrics struct {
	requests  *prometheus.CounterVec // kind, status
	received  *prometheus.CounterVec // kind: bytes of bodies as sent
	accepted  *prometheus.CounterVec // kind: acknowledged rows
	refused   *prometheus.CounterVec // kind, rule
	failed    *prometheus.CounterVec // kind: messages given up
	rows      *prometheus.HistogramVec
	sizes     *prometheus.CounterVec
	produce   *prometheus.HistogramVec
	seconds   *prometheus.HistogramVec
	inRequest prometheus.Gauge
}

var kindNames = [kinds]string{kindAnswers: "answers", kindResults: "test_results"}

// newMetrics registers the metrics; without a registry they are counted in vain.
func newMetrics(registry prometheus.Registerer, buffered func() float64) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "leerstroom_ingest_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "leerstroom_ingest_" + name, Help: help, Buckets: buckets}, []string{"kind"})
	}
	m := &metrics{
		requests: counter("requests_total", "Requests, by status of the reply.", "kind", "status"),
		received: counter("received_bytes_total", "Bytes of request bodies as sent.", "kind"),
		accepted: counter("accepted_rows_total", "Rows that Kafka has acknowledged.", "kind"),
		refused:  counter("refused_lines_total", "Lines refused, by rule.", "kind", "rule"),
		failed:   counter("failed_messages_total", "Messages that Kafka did not acknowledge in time.", "kind"),
		rows:     histogram("message_rows", "Rows of a message.", prometheus.ExponentialBuckets(1, 4, 9)),
		sizes:    counter("message_bytes_total", "Bytes of sealed messages.", "kind"),
		produce:  histogram("produce_seconds", "Time until Kafka acknowledged a message.", prometheus.ExponentialBuckets(0.0005, 2, 16)),
		seconds:  histogram("request_seconds", "Time from request to reply.", prometheus.ExponentialBuckets(0.001, 2, 16)),
		inRequest: prometheus.NewGauge(prometheus.GaugeOpts{Name: "leerstroom_ingest_requests_at_work",
			Help: "Requests being read or waiting for Kafka."}),
	}
	if registry == nil {
		return m, nil
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "leerstroom_ingest_buffered_bytes",
		Help: "Bytes of lines that Kafka has not acknowledged yet."}, buffered)
	var err error
	for _, c := range []prometheus.Collector{m.requests, m.received, m.accepted, m.refused, m.failed, m.rows, m.sizes, m.produce, m.seconds, m.inRequest, waiting} {
		err = errors.Join(err, registry.Register(c))
	}
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// observe counts a message that was sent or given up.
func (m *metrics) observe(kind recordKind, rows, bytes int, took time.Duration, err error) {
	name := kindNames[kind]
	if err != nil {
		m.failed.WithLabelValues(name).Inc()
		return
	}
	m.accepted.WithLabelValues(name).Add(float64(rows))
	m.rows.WithLabelValues(name).Observe(float64(rows))
	m.sizes.WithLabelValues(name).Add(float64(bytes))
	m.produce.WithLabelValues(name).Observe(took.Seconds())
}

// reply counts a request that was answered.
func (m *metrics) reply(kind recordKind, status int, received int64, took time.Duration, refused map[line.Rule]int) {
	name := kindNames[kind]
	m.requests.WithLabelValues(name, strconv.Itoa(status)).Inc()
	m.received.WithLabelValues(name).Add(float64(received))
	m.seconds.WithLabelValues(name).Observe(took.Seconds())
	for rule, n := range refused {
		m.refused.WithLabelValues(name, string(rule)).Add(float64(n))
	}
}
