package httpapi

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tagstream/tagstream/pkg/store/query"
)

// statusClientGone counts requests whose client disconnected before the answer. nginx uses the same
// number. It is never sent.
const statusClientGone = 499

// metrics has closed label sets, so that every series exists from the start.
type metrics struct {
	requests                    *prometheus.CounterVec
	seconds                     *prometheus.HistogramVec
	pageRows                    prometheus.Histogram
	pageEntries                 prometheus.Histogram
	changeRows                  prometheus.Histogram
	shortPages                  *prometheus.CounterVec
	inFlight                    prometheus.Gauge
	followers, followedLists    prometheus.Gauge
	followersEnded, feedExpired *prometheus.CounterVec
	index                       indexMetrics
}

// indexMetrics are the last known state of the index. They stay unchanged while the database is
// down: then complete gets old.
type indexMetrics struct {
	complete, silent                prometheus.Gauge
	checkpoint, lag                 prometheus.Gauge
	posts, visible, tags, sweepings prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, maxInFlight, maxFollowers int) *metrics {
	auto := promauto.With(r)
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: "tagstream_api_" + name, Help: help})
	}
	m := &metrics{
		index: indexMetrics{
			complete:   gauge("complete_through_timestamp_seconds", "Network time of the newest indexed event; its age is the staleness of answers."),
			silent:     gauge("silent_since_timestamp_seconds", "silentSince of /v1/status: network time since which nothing new arrived; 0: not silent."),
			checkpoint: gauge("checkpoint_sequence", "Stream sequence up to which answers are complete."),
			lag:        gauge("lag_messages", "Messages after the checkpoint, as last seen by the indexer."),
			posts:      gauge("index_posts", "Indexed posts, including hidden ones."),
			visible:    gauge("index_visible_posts", "Visible posts."),
			tags:       gauge("index_tags", "Tags of visible posts."),
			sweepings:  gauge("index_sweeping_accounts", "Accounts being swept."),
		},
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_api_requests_total", Help: "Requests answered, by route and HTTP status (499: client gone)."}, []string{"route", "code"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tagstream_api_request_duration_seconds", Help: "Time from request headers to the last byte of the answer, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"route"}),
		pageRows: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "tagstream_api_page_rows", Help: "Posts per page.", Buckets: []float64{0, 1, 10, 25, 50, 100}}),
		pageEntries: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "tagstream_api_page_index_entries", Help: "Index entries read per page, estimated.",
			Buckets: []float64{10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000}}),
		changeRows: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "tagstream_api_changes_rows", Help: "Changes per page.", Buckets: []float64{0, 1, 10, 25, 50, 100}}),
		shortPages: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_api_short_pages_total", Help: "Pages cut short although there is more, by exhausted budget."}, []string{"short_of"}),
		inFlight:      gauge("requests_in_flight", "Requests in progress, without /v1/stream."),
		followers:     gauge("followers", "Connections of /v1/stream."),
		followedLists: gauge("followed_lists", "Distinct lists followed on /v1/stream."),
		followersEnded: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_api_followers_ended_total", Help: "Connections of /v1/stream that ended, by reason."}, []string{"reason"}),
		feedExpired: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "tagstream_api_changes_expired_total", Help: "Requests with an expired position in the change feed, by reason."}, []string{"reason"}),
	}
	gauge("followers_limit", "Limit of connections of /v1/stream; further ones get 503.").Set(float64(maxFollowers))
	for _, end := range followerEnds {
		m.followersEnded.WithLabelValues(end)
	}
	for _, why := range query.Expiries {
		m.feedExpired.WithLabelValues(string(why))
	}
	gauge("requests_in_flight_limit", "Concurrency limit; further requests get 503.").Set(float64(maxInFlight))
	for _, s := range query.CutReasons {
		m.shortPages.WithLabelValues(string(s))
	}
	for _, route := range routeNames {
		m.seconds.WithLabelValues(route)
		for _, status := range []int{200, 204, 303, 304, 400, 404, 405, 410, statusClientGone, 500, 503} {
			m.requests.WithLabelValues(route, strconv.Itoa(status))
		}
	}
	return m
}

// countPage counts a page of posts.
func (m *metrics) countPage(p query.PostPage) {
	m.pageRows.Observe(float64(len(p.Rows)))
	m.pageEntries.Observe(float64(p.IndexEntries))
	if p.Cut != "" {
		m.shortPages.WithLabelValues(string(p.Cut)).Inc()
	}
}

// countChanges counts a page of changes.
func (m *metrics) countChanges(p query.ChangePage) {
	m.changeRows.Observe(float64(len(p.Changes)))
	if p.Cut != "" {
		m.shortPages.WithLabelValues(string(p.Cut)).Inc()
	}
}

// countExpired counts an error that is a *query.Expired.
func (m *metrics) countExpired(err error) {
	var e *query.Expired
	if errors.As(err, &e) {
		m.feedExpired.WithLabelValues(string(e.Reason)).Inc()
	}
}

// observe sets the metrics to the current state of the index.
func (m *indexMetrics) observe(s query.Status, lag lagJSON, silentSince *utc) {
	if lag.Seconds != nil {
		m.complete.Set(float64(time.Now().UnixMilli())/1e3 - *lag.Seconds)
	}
	m.silent.Set(0)
	if silentSince != nil {
		m.silent.Set(float64(time.Time(*silentSince).UnixMilli()) / 1e3)
	}
	m.checkpoint.Set(float64(s.Checkpoint.Seq))
	m.lag.Set(float64(lag.Messages))
	m.posts.Set(float64(s.Posts))
	m.visible.Set(float64(s.VisiblePosts))
	m.tags.Set(float64(s.Tags))
	m.sweepings.Set(float64(s.Sweeps))
}

func (m *metrics) countRequest(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}
