package httpapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// statusClientGone counts requests whose client went away before the answer; it
// is nginx's number for it, and never sent.
const statusClientGone = 499

// metrics has closed label sets, so that every series exists from the start.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	pageRows prometheus.Histogram
	inFlight prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_api_requests_total", Help: "Requests answered, by route and HTTP status (499: the client went away)."}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tagstream_api_request_seconds", Help: "Time from a request's headers to its answer's last byte, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"route"}),
		pageRows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tagstream_api_page_rows", Help: "Posts per page.", Buckets: []float64{0, 1, 10, 25, 50, 100}}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tagstream_api_requests_in_flight", Help: "Requests being answered."}),
	}
	r.MustRegister(m.requests, m.seconds, m.pageRows, m.inFlight)
	for _, route := range routeNames {
		m.seconds.WithLabelValues(route)
		for _, status := range []int{200, 204, 304, 400, 404, 405, statusClientGone, 500, 503} {
			m.requests.WithLabelValues(route, strconv.Itoa(status))
		}
	}
	return m
}

func (m *metrics) answered(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}
