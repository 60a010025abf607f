package firehose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

// Config is what to read, and from where.
type Config struct {
	// Hosts are base URLs without a trailing slash, the preferred one first.
	Hosts []string
	// Start is used where there is no position to resume from.
	Start Start
	// StopAfter ends Run after this much upstream time, counted from where it
	// began; 0 is never.
	StopAfter time.Duration
	// APIKey is sent with requests for the archive; "" sends none.
	APIKey string
	// Timing is for tests; its zero fields mean DefaultTiming's.
	Timing Timing
}

// Batch is a run of events of one host in upstream order. The first one of
// each connection has no events.
type Batch struct {
	Host string
	// Events are valid until the handler returns. There may be none of those read.
	Events []jetstream.Event
	// Positions are where they stand, one for each.
	Positions []event.Position
	// Last is how far reading has come with this batch: everything up to it was
	// handed over. After a change of host it stays on the old one until the new
	// one gives an event.
	Last event.Position
}

// Handler takes a batch. While it runs nothing more is read, so a slow handler
// slows the host. Its error ends Run.
type Handler func(ctx context.Context, b Batch) error

// What is a kind of notice.
type What string

// The kinds of notices.
const (
	Connected    What = "connected"
	Disconnected What = "disconnected" // a connection ended that had been reading
	Silent       What = "silent"       // a host gave nothing new while another one had something: it is left
	Quiet        What = "quiet"        // nothing new is heard, from any host
	Switched     What = "switched"     // reading goes on in another history
	Failed       What = "failed"       // a host could not be connected to
	Skipped      What = "skipped"      // something that could not be read was passed over
	Gap          What = "gap"          // reading goes on where deletions may be missing
)

// Whats lists the kinds of notices.
var Whats = []What{Connected, Disconnected, Silent, Quiet, Switched, Failed, Skipped, Gap}

// Notice is something that an operator may want to know of a connection.
type Notice struct {
	What     What
	Host     string
	Position event.Position
	Detail   string
	// Repeated says that the host failed with the same detail shortly before.
	Repeated bool
}

// Reader reads the firehose.
type Reader struct {
	cfg    Config
	timing Timing
	logger *slog.Logger
	// transport is of all connections; http is that of what is no client's.
	transport http.RoundTripper
	http      *http.Client
	// OnNotice, if set, hears of connections and failures; OnClientError of
	// each error that the client mends by itself; OnLateHistory of a host whose
	// history begins later than Config.Start, which its error passes over. They
	// must not block.
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

// run is the state of one Run, owned by its goroutine.
type run struct {
	*Reader
	handle Handler
	// pos is the last event that the handler took, or where reading begins.
	pos   event.Position
	clock *clock
	// sync is what is open, and resync what another host has to give again.
	sync   event.OpenSync
	resync resync
	// newest is the latest time that an event read gave itself. The clock is behind
	// it: it believes no single account.
	newest time.Time
	// quiet is when it was last said that nothing new is heard; the watchdog's.
	quiet time.Time
	// places are the positions of the batch in hand.
	places []event.Position
	// origin is the time at which the very first start began, where that was
	// in this run, and start the same where it is Config.Start's.
	origin, start time.Time
	// end is when StopAfter ends; zero is never, or not known yet.
	end time.Time
	// failures are the last of each host since it was connected.
	failures map[string]failure
	// young is when a host was first passed over for its youth, zero where none
	// was, and gap says that a gap was noticed; since the position last moved.
	young time.Time
	gap   bool
	// unreadable counts failures to read the archive behind one position.
	unreadable struct {
		pos   event.Position
		times int
	}
}

// errReachedEnd says that StopAfter has passed.
var errReachedEnd = errors.New("reached the end of the time to read")

// Run reads behind from, or from Config.Start where from is zero, until ctx
// ends (it returns ctx's error), the handler fails (its error), or StopAfter
// has passed (nil). Anything else it retries for ever.
func (rd *Reader) Run(ctx context.Context, from event.Position, handle Handler) error {
	r := &run{Reader: rd, handle: handle, pos: from, clock: newClock(from), sync: from.Sync, failures: map[string]failure{}}
	if !from.Resync.IsZero() {
		r.resync = resync{made: from.Resync, until: r.clock.at}
	}
	switch {
	case from.Seq > 0:
		r.setEnd(from.NetworkTime())
	case from.IsZero() && !rd.cfg.Start.Time.IsZero():
		r.setOrigin(rd.cfg.Start.Time)
		r.start = r.origin
	}
	// What an earlier run read is not new. Hosts stamp no event before it is made.
	r.heard(from.NetworkTime())
	r.heard(from.Time)
	hosts := newRotation(len(rd.cfg.Hosts), rd.timing)
	hosts.doubt(slices.Index(rd.cfg.Hosts, from.Host))
	for {
		next, pause := hosts.next()
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		if hosts.asks(next) && !hosts.answered(next, r.hasNews(ctx, rd.cfg.Hosts[next])) {
			hosts.ended(false, true)
			continue
		}
		before := r.pos
		err := r.visit(ctx, rd.cfg.Hosts[next])
		var handler *handlerError
		var silent *silentError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errReachedEnd):
			return nil
		case errors.As(err, &handler):
			return handler.err
		}
		hosts.ended(r.pos != before, errors.Is(err, errAway))
		if errors.As(err, &silent) {
			hosts.fellSilent(silent.other)
		}
	}
}

// handlerError tells the handler's errors from the host's.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }

func (r *run) setOrigin(t time.Time) {
	r.origin = t.UTC().Truncate(time.Microsecond)
	r.setEnd(r.origin)
}

func (r *run) setEnd(begin time.Time) {
	if r.cfg.StopAfter > 0 && r.end.IsZero() {
		r.end = begin.Add(r.cfg.StopAfter)
	}
}

// failure is a notice that need not be given again and again.
type failure struct {
	detail string
	at     time.Time
}

// sayAgain is when a host that keeps failing in one way is worth a new line.
const sayAgain = 10 * time.Minute

// notify logs a notice and passes it on. It is the run's goroutine's, but for
// Skipped and Quiet notices, which touch nothing of the run.
func (r *run) notify(n Notice) {
	level := slog.LevelInfo
	switch n.What {
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
	r.logger.Log(context.Background(), level, "firehose "+string(n.What),
		"host", n.Host, "seq", n.Position.Seq, "detail", n.Detail)
	if r.OnNotice != nil {
		r.OnNotice(n)
	}
}

// visit reads from one host until that ends, and says why. The error is never
// nil.
func (r *run) visit(ctx context.Context, host string) error {
	at, err := r.locate(ctx, host)
	if err != nil {
		if ctx.Err() == nil {
			r.notify(Notice{What: Failed, Host: host, Position: r.pos, Detail: err.Error()})
		}
		return err
	}
	client, err := r.subscribe(host, at.Seq)
	if err != nil {
		r.notify(Notice{What: Failed, Host: host, Position: r.pos, Detail: err.Error()})
		return err
	}
	defer func() { _ = client.Close() }()
	r.notify(Notice{What: Connected, Host: host, Position: at, Detail: fmt.Sprintf("reading behind %d", at.Seq)})
	if err := r.handle(ctx, Batch{Host: host, Last: r.pos}); err != nil {
		return &handlerError{err}
	}
	err = r.read(ctx, client, at)
	what := Disconnected
	var handler *handlerError
	var silent *silentError
	if errors.As(err, &silent) {
		what = Silent
	}
	if ctx.Err() == nil && !errors.Is(err, errReachedEnd) && !errors.As(err, &handler) {
		r.notify(Notice{What: what, Host: host, Position: r.pos, Detail: err.Error()})
	}
	return err
}

// downloads is how many archive blocks are decoded at a time, and half of how
// many are fetched: few, because each is held in memory whole.
const downloads = 2

func (r *run) subscribe(host string, after uint64) (*jetstream.Client, error) {
	filtered := &oversizeFilter{base: r.transport, skipped: func(host string, bytes uint64) {
		r.notify(Notice{What: Skipped, Host: host, Detail: fmt.Sprintf("a message of %d bytes is skipped: an event is missing", bytes)})
	}}
	opts := []jetstream.Option{
		jetstream.WithAfterSeq(after),
		jetstream.WithKinds(kinds[:]),
		jetstream.WithCollection(event.Collection),
		// Records as CBOR: the client's map would round integers.
		jetstream.WithRawRecords(),
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

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
