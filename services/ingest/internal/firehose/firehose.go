package firehose

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/pause"
)

// Config says what to read, and from where.
type Config struct {
	// Hosts are base URLs without a trailing slash, the preferred one first.
	Hosts []string
	// Start is used if there is no position to resume from.
	Start Start
	// StopAfter ends Read after this much upstream time from its beginning; 0 means never.
	StopAfter time.Duration
	// APIKey is sent with requests for the archive; "" sends none.
	APIKey string
	// Timing is for tests; its zero fields mean DefaultTiming's.
	Timing Timing
}

// Batch is a series of events of one host in upstream order. The first one of each connection has
// no events.
type Batch struct {
	Host string
	// Events are valid until the next batch is requested. The list may be empty.
	Events []jetstream.Event
	// Positions are the positions of Events.
	Positions []event.Position
	// Last is how far reading has got with this batch. After a change of host it stays on the old
	// host until the new one delivers an event.
	Last event.Position
}

// NoticeKind is a kind of notice.
type NoticeKind string

// The kinds of notices.
const (
	Connected    NoticeKind = "connected"
	Disconnected NoticeKind = "disconnected" // a connection ended that had been reading
	Silent       NoticeKind = "silent"       // a host gave nothing new while another one had something: it is left
	Quiet        NoticeKind = "quiet"        // nothing new is heard, from any host
	Switched     NoticeKind = "switched"     // reading continues in another history
	Failed       NoticeKind = "failed"       // a host could not be connected to
	Skipped      NoticeKind = "skipped"      // something that could not be read was passed over
	Gap          NoticeKind = "gap"          // reading continues where deletions may be missing
)

// NoticeKinds lists them.
var NoticeKinds = []NoticeKind{Connected, Disconnected, Silent, Quiet, Switched, Failed, Skipped, Gap}

// Notice is something about a connection that an operator may want to know.
type Notice struct {
	Kind     NoticeKind
	Host     string
	Position event.Position
	Detail   string
	// Repeated reports that the host failed with the same detail shortly before.
	Repeated bool
}

// Reader reads the firehose.
type Reader struct {
	cfg    Config
	timing Timing
	logger *slog.Logger
	// transport is used for all connections, http for requests other than the client's.
	transport http.RoundTripper
	http      *http.Client
	// If set, OnNotice receives connections and failures, OnClientError each error from which the
	// client recovers, and OnLateHistory each host whose history begins after Config.Start; an
	// error from it skips the host. They must not block.
	OnNotice      func(Notice)
	OnClientError func(error)
	OnLateHistory func(host string, begins time.Time) error
}

// New returns a reader. It starts nothing.
func New(cfg Config, logger *slog.Logger) *Reader {
	t := newTransport()
	return &Reader{
		cfg: cfg, timing: cfg.Timing.withDefaults(), logger: logger,
		transport: t, http: &http.Client{Transport: &oversizeFilter{base: t}},
	}
}

// run is the state of one Read, owned by its goroutine.
type run struct {
	*Reader
	// give passes a batch to the caller, and reports whether the caller wants more.
	give func(Batch) bool
	// pos is the last event that the caller took, or where reading begins.
	pos   event.Position
	clock *clock
	// sync is the open #sync, and resync the one that another host must deliver again.
	sync   event.OpenSync
	resync resync
	// newest is the latest of the events' own times. The clock lags behind it, since the clock
	// trusts no single account.
	newest time.Time
	limit  ceiling // of newest
	// quiet is when silence was last reported; used only by the watchdog.
	quiet time.Time
	// positions are those of the current batch.
	positions []event.Position
	// origin is the time at which the very first start began, if that was in this run; start is the
	// same if it is that of Config.Start.
	origin, start time.Time
	// end is when StopAfter ends; zero means never, or not known yet.
	end time.Time
	// failures has each host's last failure since it was connected.
	failures map[string]failure
	// young is when a host was first skipped because its history is too short, zero if none was,
	// and gap reports that a gap was announced; both since the position last moved.
	young time.Time
	gap   bool
	// unreadable counts failed attempts to read the archive after one position.
	unreadable struct {
		pos   event.Position
		times int
	}
}

// Why reading ends for good, other than by its context.
var (
	errReachedEnd = errors.New("reached the end of the time to read")
	errStopped    = errors.New("no more batches are wanted")
)

func isFinal(err error) bool { return errors.Is(err, errReachedEnd) || errors.Is(err, errStopped) }

// Read returns the events after from, or after Config.Start if from is zero. While the caller
// processes a batch, about maxTogether more events are received and wait, and nothing more: so a
// slow caller slows the host. Read ends when StopAfter has passed or, with its error, when ctx
// ends. It retries everything else indefinitely.
func (rd *Reader) Read(ctx context.Context, from event.Position) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		r := &run{
			Reader: rd, pos: from, clock: newClock(from), sync: from.Sync, failures: map[string]failure{},
			give: func(b Batch) bool { return yield(b, nil) },
		}
		if err := r.visits(ctx); !isFinal(err) {
			yield(Batch{}, err)
		}
	}
}

// visits reads from one host after the other, and returns why it ended.
func (r *run) visits(ctx context.Context) error {
	from := r.pos
	if !from.Resync.IsZero() {
		r.resync = resync{made: from.Resync, until: r.clock.at}
	}
	switch {
	case from.Seq > 0:
		r.setEnd(from.NetworkTime())
	case from.IsZero() && !r.cfg.Start.Time.IsZero():
		r.setOrigin(r.cfg.Start.Time)
		r.start = r.origin
	}
	// Events of an earlier run are not news. No host stamps an event before it is made.
	r.heard(from.NetworkTime())
	r.heard(from.Time)
	hosts := newRotation(len(r.cfg.Hosts), r.timing)
	hosts.doubt(slices.Index(r.cfg.Hosts, from.Host))
	for {
		next, wait := hosts.next()
		if err := pause.For(ctx, wait); err != nil {
			return err
		}
		if hosts.mustAsk(next) && !hosts.answered(next, r.hasNews(ctx, r.cfg.Hosts[next])) {
			hosts.ended(false, true)
			continue
		}
		before := r.pos
		err := r.visit(ctx, r.cfg.Hosts[next])
		if isFinal(err) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		hosts.ended(r.pos != before, errors.Is(err, errAway))
		var silent *silentError
		if errors.As(err, &silent) {
			hosts.fellSilent(silent.other)
		}
	}
}

func (r *run) setOrigin(t time.Time) {
	r.origin = t.UTC().Truncate(time.Microsecond)
	r.setEnd(r.origin)
}

func (r *run) setEnd(begin time.Time) {
	if r.cfg.StopAfter > 0 && r.end.IsZero() {
		r.end = begin.Add(r.cfg.StopAfter)
	}
}

// failure is the last reported failure of a host.
type failure struct {
	detail string
	at     time.Time
}

// sayAgain is how long a repeated failure is not reported again.
const sayAgain = 10 * time.Minute

// notify logs a notice and passes it on. It belongs to the run's goroutine, except for Skipped and
// Quiet notices, which use no state of the run.
func (r *run) notify(n Notice) {
	level := slog.LevelInfo
	switch n.Kind {
	case Connected:
		delete(r.failures, n.Host)
	case Failed:
		level = slog.LevelWarn
		before, now := r.failures[n.Host], time.Now()
		if n.Repeated = before.detail == n.Detail && now.Sub(before.at) < sayAgain; n.Repeated {
			level = slog.LevelDebug
		} else {
			r.failures[n.Host] = failure{n.Detail, now}
		}
	case Disconnected, Silent, Quiet:
		level = slog.LevelWarn
	case Skipped, Gap:
		level = slog.LevelError
	}
	r.logger.Log(context.Background(), level, "firehose "+string(n.Kind),
		"host", n.Host, "seq", n.Position.Seq, "detail", n.Detail)
	if r.OnNotice != nil {
		r.OnNotice(n)
	}
}

// visit reads from one host until that ends, and returns why. The error is never nil.
func (r *run) visit(ctx context.Context, host string) error {
	at, err := r.locate(ctx, host)
	if err != nil {
		if ctx.Err() == nil {
			r.notify(Notice{Kind: Failed, Host: host, Position: r.pos, Detail: err.Error()})
		}
		return err
	}
	client, err := r.subscribe(host, at.Seq)
	if err != nil {
		r.notify(Notice{Kind: Failed, Host: host, Position: r.pos, Detail: err.Error()})
		return err
	}
	defer func() { _ = client.Close() }()
	r.notify(Notice{Kind: Connected, Host: host, Position: at, Detail: fmt.Sprintf("reading after %d", at.Seq)})
	if !r.give(Batch{Host: host, Last: r.pos}) {
		return errStopped
	}
	err = r.read(ctx, client, at)
	kind := Disconnected
	var silent *silentError
	if errors.As(err, &silent) {
		kind = Silent
	}
	if ctx.Err() == nil && !isFinal(err) {
		r.notify(Notice{Kind: kind, Host: host, Position: r.pos, Detail: err.Error()})
	}
	return err
}

// downloads is how many archive blocks are decoded at a time, and half of how many are fetched. It
// is low because each block is in memory as a whole.
const downloads = 2

func (r *run) subscribe(host string, after uint64) (*jetstream.Client, error) {
	filtered := &oversizeFilter{base: r.transport, skipped: func(host string, bytes uint64) {
		r.notify(Notice{Kind: Skipped, Host: host, Detail: fmt.Sprintf("a message of %d bytes is skipped: an event is missing", bytes)})
	}}
	opts := []jetstream.Option{
		jetstream.WithAfterSeq(after),
		jetstream.WithKinds(kinds[:]),
		jetstream.WithCollections(collections[:]),
		// Records as CBOR: the client's map would round integers.
		jetstream.WithRawRecords(),
		// With more, the client would keep events of the live tail back for up to 20 ms.
		jetstream.WithBatchSize(1),
		jetstream.WithDownloadConcurrency(downloads),
		jetstream.WithHTTPClient(&http.Client{Transport: &blockwise{base: filtered}}),
		jetstream.WithLogger(r.logger),
	}
	if r.cfg.APIKey != "" {
		opts = append(opts, jetstream.WithAPIKey(r.cfg.APIKey))
	}
	client, err := jetstream.Subscribe(host, opts...)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", host, err)
	}
	return client, nil
}
