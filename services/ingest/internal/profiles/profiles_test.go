package profiles

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

const (
	alice = "did:plc:alice"
	bob   = "did:plc:bob"
	cid   = "bafkreib"
)

// watch is an Observer and a store for tests.
type watch struct {
	mu       sync.Mutex
	fates    map[Fate]int
	outcomes map[Outcome]int
	events   []*event.Event
	refuse   error
	settled  chan struct{} // receives after each settled author
}

func newWatch() *watch {
	return &watch{fates: map[Fate]int{}, outcomes: map[Outcome]int{}, settled: make(chan struct{}, 1<<20)}
}

func (w *watch) Author(fate Fate, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fates[fate] += n
	if fate != Unasked && fate != PassedOver {
		for range n {
			w.settled <- struct{}{}
		}
	}
}

func (w *watch) Request(outcome Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes[outcome]++
}

func (w *watch) store(_ context.Context, events []*event.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, events...)
	return w.refuse
}

var quick = Timing{Gather: time.Millisecond, Pace: time.Nanosecond, RetryMin: time.Nanosecond, RetryMax: time.Nanosecond}

// run queries a service until the test ends.
func run(t *testing.T, p *Profiles, w *watch) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { p.Run(ctx, w.store) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

func serve(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

func profile(fields string) http.HandlerFunc {
	return says(`{"profiles":[{"did":"` + alice + `",` + fields + `}]}`)
}

// TestAnswers has a case for every kind of answer about an author.
func TestAnswers(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("another host was queried") })
	label := func(src, val, more string) string {
		return `"handle":"alice.example","labels":[{"src":"` + src + `","val":"` + val + `"` + more + `}]`
	}
	megabytes := `{"profiles":[{"did":"` + alice + `","displayName":"` + strings.Repeat("x", maxAnswer) + `"}]}`
	none, gone := event.Profile{}, "-" // no event
	times := func(n int, o Outcome) map[Outcome]int { return map[Outcome]int{o: n} }
	for name, tt := range map[string]struct {
		answer   http.HandlerFunc
		profile  event.Profile
		handle   string // "-" means no handle in the event or, if the fate is not Found, no event
		fates    map[Fate]int
		outcomes map[Outcome]int
	}{
		"all that is kept": {answer: profile(`"handle":"Alice.Example","displayName":" Alice ","avatar":"https://cdn.example/img/avatar/plain/` + alice + `/` + cid + `@jpeg","description":"x","indexedAt":"x"`),
			profile: event.Profile{DisplayName: "Alice", Avatar: cid}, handle: "alice.example"},
		"an avatar of another form":   {answer: profile(`"handle":"alice.example","avatar":"/img/` + alice + `/` + cid + `"`), profile: event.Profile{Avatar: cid}, handle: "alice.example"},
		"nothing":                     {answer: profile(`"handle":"handle.invalid"`), profile: none, handle: ""},
		"no handle at all":            {answer: profile(`"displayName":"A"`), profile: event.Profile{DisplayName: "A"}, handle: gone},
		"opted out":                   {answer: profile(label(alice, "!no-unauthenticated", "")), profile: event.Profile{OptedOut: true}, handle: "alice.example"},
		"opted out by someone else":   {answer: profile(label("did:plc:labeler", "!no-unauthenticated", "")), profile: none, handle: "alice.example"},
		"opted out, and not any more": {answer: profile(label(alice, "!no-unauthenticated", `,"neg":true`)), profile: none, handle: "alice.example"},
		"another label":               {answer: profile(label(alice, "porn", "")), profile: none, handle: "alice.example"},
		"labels of null":              {answer: profile(`"handle":"alice.example","labels":null`), profile: none, handle: "alice.example"},
		"labels that are none":        {answer: profile(`"labels":"!no-unauthenticated"`), fates: map[Fate]int{Malformed: 1}},
		"a label of a number":         {answer: profile(`"labels":[{"src":"` + alice + `","val":1}]`), fates: map[Fate]int{Malformed: 1}},
		"a label that is a list":      {answer: profile(`"labels":[[]]`), fates: map[Fate]int{Malformed: 1}},
		"wrong types":                 {answer: profile(`"handle":1,"displayName":{"a":[]},"avatar":[]`), profile: none, handle: gone},
		"HTML and control characters": {answer: profile(`"handle":"<b>.example","displayName":"<script>\u0000\u202Ealert(1)\u0007</script>","avatar":"javascript:alert(1)"`),
			profile: event.Profile{DisplayName: "<script>alert(1)</script>"}, handle: ""},
		"a long name":        {answer: profile(`"handle":"` + strings.Repeat("a.", 200) + `example","displayName":"` + strings.Repeat("é", 5000) + `"`), profile: event.Profile{DisplayName: strings.Repeat("é", 64)}, handle: ""},
		"bad text":           {answer: profile("\"handle\":\"alice.example\",\"displayName\":\"\xff\\ud800\""), profile: event.Profile{DisplayName: "\uFFFD\uFFFD"}, handle: "alice.example"},
		"avatar of another":  {answer: profile(`"handle":"alice.example","avatar":"https://cdn.example/img/avatar/plain/did:plc:bob/` + cid + `@jpeg"`), profile: none, handle: "alice.example"},
		"of nobody":          {answer: says(`{"profiles":[]}`), fates: map[Fate]int{Absent: 1}},
		"of someone else":    {answer: says(`{"profiles":[{"did":"` + bob + `","handle":"bob.example"}]}`), fates: map[Fate]int{Absent: 1, Unasked: 1}},
		"twice":              {answer: says(`{"profiles":[{"did":"` + alice + `","handle":"a.example"},{"did":"` + alice + `","handle":"b.example"}]}`), handle: "a.example", fates: map[Fate]int{Found: 1, Unasked: 1}},
		"of no DID":          {answer: says(`{"profiles":[{"did":7},null,"x",{}]}`), fates: map[Fate]int{Absent: 1, Malformed: 4}},
		"a page":             {answer: says("<!doctype html><title>Sorry</title>"), fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, Unreadable)},
		"half an answer":     {answer: says(`{"profiles":[{"did":"` + alice + `"`), fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, Unreadable)},
		"no profiles":        {answer: says(`{}`), fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, Unreadable)},
		"profiles of a word": {answer: says(`{"profiles":"x"}`), fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, Unreadable)},
		"megabytes":          {answer: says(megabytes), fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, TooBig)},
		"megabytes, packed": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, megabytes)
			_ = z.Close()
		}, fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, TooBig)},
		"a header of megabytes": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", maxAnswer))
		}, fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, Away)},
		"a way elsewhere": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere+r.URL.String(), http.StatusFound)
		},
			fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, BadStatus)},
		"errors":    {answer: status500, fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, BadStatus)},
		"a refusal": {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, fates: map[Fate]int{GivenUp: 1}, outcomes: times(1, Refused)},
		"a connection that breaks": {answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, Away)},
		"an answer that breaks": {answer: breaks, fates: map[Fate]int{GivenUp: 1}, outcomes: times(maxAttempts, Away)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.fates == nil {
				tt.fates = map[Fate]int{Found: 1}
			}
			if tt.outcomes == nil {
				tt.outcomes = times(1, OK)
			}
			w, url := newWatch(), serve(t, tt.answer)
			p := New(url, quick, slog.New(slog.DiscardHandler), w)
			p.Offer(alice)
			stop := run(t, p, w)
			<-w.settled
			stop()
			require.Equal(t, tt.fates, w.fates)
			require.Equal(t, tt.outcomes, w.outcomes)
			require.Len(t, w.events, tt.fates[Found])
			for _, ev := range w.events {
				require.NoError(t, ev.Validate())
				require.Equal(t, tt.profile, *ev.Profile)
				require.True(t, ev.LookedUp())
				require.Equal(t, url, ev.Source.Host)
				if tt.handle == gone {
					require.Nil(t, ev.Handle)
				} else {
					require.Equal(t, tt.handle, ev.Handle.Name)
				}
			}
		})
	}
}

func breaks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"profiles":[`)
}

func status500(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }

// Authors are requested 25 at a time, each once a day.
func TestQuestions(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked [][]string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, "/xrpc/app.bsky.actor.getProfiles", r.URL.Path)
		asked = append(asked, r.URL.Query()["actors"])
		says(`{"profiles":[]}`)(w, r)
	})
	timing := quick
	timing.Gather = time.Minute // only full requests
	w := newWatch()
	p := New(url, timing, slog.New(slog.DiscardHandler), w)
	now := time.Now()
	p.now = func() time.Time { return now }
	var want []string
	offer := func(dids []string) {
		for range 3 {
			for _, did := range dids {
				p.Offer(did)
			}
		}
	}
	for i := range 2 * AtOnce {
		want = append(want, fmt.Sprintf("did:plc:%d", i))
	}
	offer(want)
	stop := run(t, p, w)
	for range want {
		<-w.settled
	}
	stop()
	require.Equal(t, [][]string{want[:AtOnce], want[AtOnce:]}, asked)

	now = now.Add(askAgainAfter - time.Second)
	offer(want)
	require.Empty(t, p.queue)
	now = now.Add(time.Second)
	offer(want)
	require.Len(t, p.queue, len(want))
	require.Equal(t, map[Fate]int{Absent: len(want)}, w.fates)
}

// If the queue is full, authors are skipped, and requested later.
func TestOfferNeverBlocks(t *testing.T) {
	t.Parallel()
	w := newWatch()
	p := New("http://127.0.0.1:1", Timing{}, slog.New(slog.DiscardHandler), w)
	for i := range maxQueued + 3 {
		p.Offer(fmt.Sprintf("did:plc:%d", i))
	}
	p.Offer("did:web:" + strings.Repeat("x", maxDID))
	require.Equal(t, map[Fate]int{PassedOver: 4}, w.fates)
	<-p.queue
	p.Offer(fmt.Sprintf("did:plc:%d", maxQueued))
	require.Len(t, p.queue, maxQueued)
	require.Equal(t, map[Fate]int{PassedOver: 4}, w.fates)
}

// The oldest entries are forgotten, and deliberately forgotten ones do not return.
func TestAskedIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 1000
	a, now := newAsked(limit), time.Now()
	put := func(did string) {
		if a.recently(did, now) {
			t.Error(did)
		}
		a.note(did, now)
	}
	put("first")
	a.forget("first")
	put("first")
	for i := range limit + 5 {
		put(fmt.Sprint(i))
	}
	require.LessOrEqual(t, len(a.byAuthor), limit)
	require.Len(t, a.order, limit)
	require.False(t, a.recently("first", now))
	require.False(t, a.recently("0", now))
	require.True(t, a.recently(fmt.Sprint(limit), now))
	require.False(t, a.recently("nobody", now.Add(askAgainAfter)))
	last := fmt.Sprint(limit)
	require.False(t, a.recently(last, now.Add(askAgainAfter)))
	says := func(name string, optedOut bool) *event.Event {
		return &event.Event{DID: last, Profile: &event.Profile{DisplayName: name, OptedOut: optedOut}, Handle: &event.Handle{Name: "a.example"}}
	}
	require.False(t, a.repeats(says("A", false)))
	a.stored(says("A", false))
	a.note(last, now.Add(askAgainAfter))
	require.True(t, a.repeats(says("A", false)), "it is already in the stream")
	require.False(t, a.repeats(says("B", false)))
	a.stored(says("A", true))
	require.False(t, a.repeats(says("A", true)), "opt-outs must be repeated")
	require.False(t, a.repeats(says("A", false)))
}

// A service that is unavailable, slow or asks to wait is queried again until it answers. If it does
// not recover, the look-up is given up, and repeated with the author's next post.
func TestServiceFailures(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	answers := []http.HandlerFunc{
		status500,
		func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, // slow
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		breaks,
		profile(`"handle":"alice.example"`),
		status500, status500, status500, status500, status500,
		says(`{"profiles":[{"did":"` + bob + `","handle":"bob.example"}]}`),
	}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		next := answers[0]
		answers = answers[1:]
		mu.Unlock()
		next(w, r)
	})
	w, timing := newWatch(), quick
	timing.Timeout = 300 * time.Millisecond
	p := New(url, timing, slog.New(slog.DiscardHandler), w)
	p.Offer(alice)
	stop := run(t, p, w)
	<-w.settled
	stop()
	require.Equal(t, map[Outcome]int{BadStatus: 1, Slow: 1, RateLimited: 3, Away: 1, OK: 1}, w.outcomes)
	require.Equal(t, map[Fate]int{Found: 1}, w.fates)
	p.Offer(bob)
	stop = run(t, p, w)
	<-w.settled
	stop()
	require.Equal(t, map[Fate]int{Found: 1, GivenUp: 1}, w.fates)
	p.Offer(bob)
	stop = run(t, p, w)
	<-w.settled
	stop()
	require.Equal(t, map[Fate]int{Found: 2, GivenUp: 1}, w.fates)
	require.Equal(t, "bob.example", w.events[1].Handle.Name)
}

// An author whom the service refuses does not affect others: the request is halved until it has
// only that author.
func TestRefusals(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		dids := r.URL.Query()["actors"]
		if slices.Contains(dids, bob) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, `{"profiles":[{"did":"`+strings.Join(dids, `"},{"did":"`)+`"}]}`)
	})
	timing := quick
	timing.Gather = time.Minute // only full requests
	w := newWatch()
	p := New(url, timing, slog.New(slog.DiscardHandler), w)
	for i := range AtOnce - 1 {
		if i == 7 {
			p.Offer(bob)
		}
		p.Offer(fmt.Sprintf("did:plc:%d", i))
	}
	stop := run(t, p, w)
	for range AtOnce {
		<-w.settled
	}
	stop()
	require.Equal(t, map[Fate]int{Found: AtOnce - 1, GivenUp: 1}, w.fates)
	require.LessOrEqual(t, w.outcomes[Refused]+w.outcomes[OK], 2*6, "two for each halving of 25")
	require.Len(t, w.events, AtOnce-1)
}

// Authors that were not stored when a term ended are requested again.
func TestEndOfTerm(t *testing.T) {
	t.Parallel()
	w := newWatch()
	w.refuse = errors.New("the lease is lost")
	p := New(serve(t, profile(`"handle":"alice.example"`)), quick, slog.New(slog.DiscardHandler), w)
	p.Offer(alice)
	p.Run(t.Context(), w.store)
	require.Empty(t, w.fates)
	w.refuse = nil
	p.Offer(alice)
	run(t, p, w)
	<-w.settled
	require.Equal(t, map[Fate]int{Found: 1}, w.fates)
}

// Invariant: an answer that removes something counts as of its time, one that shows something as of
// half a day before. So no answer undoes a commit that the AppView may not know yet, and none shows
// an author whom another answer or a recent commit has hidden.
func TestCommitsOverrideAnswers(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 10, 15, 30, 0, time.UTC)
	look := func(at time.Time, fields string) *event.Event {
		a, err := parse([]byte(`{"profiles":[{"did":"`+alice+`",`+fields+`}]}`), []string{alice}, "https://a.example", at)
		require.NoError(t, err)
		return a.events[0]
	}
	const optsOut, shows = `"labels":[{"src":"` + alice + `","val":"!no-unauthenticated"}]`, `"handle":"alice.example"`
	commit := func(d time.Duration) string { return event.RevAt(at.Add(d)) }
	shown, hidden := look(at, shows), look(at, optsOut+`,"handle":"handle.invalid"`)
	require.Less(t, shown.Rev, commit(-time.Hour), "a commit that the AppView may not have seen must win")
	require.Greater(t, shown.Rev, commit(-24*time.Hour), "an answer must replace a commit lost in a gap")
	require.Greater(t, hidden.Rev, commit(-time.Second), "an answer must win over an earlier commit that arrives later")
	require.Less(t, hidden.Rev, commit(time.Second), "a commit that opts in must win")
	require.Greater(t, look(at.Add(askAgainAfter), shows).Rev, hidden.Rev, "an answer must replace a lost commit that opts in")
	require.Equal(t, at.Add(-appViewLag), shown.Handle.Time)
	require.Equal(t, at, hidden.Handle.Time)
	back, ok := event.RevTime(hidden.Rev)
	require.True(t, ok)
	require.Equal(t, at, back)
}

// The earlier one of this machine's clock and the service's counts.
func TestClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 10, 15, 30, 0, time.UTC)
	for date, want := range map[string]time.Time{
		"Fri, 20 Nov 2026 10:15:10 GMT": now.Add(-20 * time.Second), "Fri, 20 Nov 2026 10:15:50 GMT": now, "soon": now,
	} {
		w := newWatch()
		p := New(serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", date)
			profile(`"handle":"alice.example"`)(w, r)
		}), quick, slog.New(slog.DiscardHandler), w)
		p.now = func() time.Time { return now }
		p.Offer(alice)
		stop := run(t, p, w)
		<-w.settled
		stop()
		require.Equal(t, want, w.events[0].Source.Time, date)
	}
}

// Pauses double up to a limit, and are never shorter than the service requests.
func TestPauses(t *testing.T) {
	t.Parallel()
	p := New("http://127.0.0.1:1", Timing{}, slog.New(slog.DiscardHandler), newWatch())
	for range 3 {
		for want := time.Second; want < 5*time.Minute; want *= 2 {
			got := p.noteFailure(&requestError{outcome: Away, err: errors.New("x")})
			require.GreaterOrEqual(t, got, want/2)
			require.LessOrEqual(t, got, want)
		}
		for range 3 {
			require.LessOrEqual(t, p.noteFailure(&requestError{outcome: Away, err: errors.New("x")}), 5*time.Minute)
		}
		got := p.noteFailure(&requestError{outcome: RateLimited, retryAfter: time.Hour, err: errors.New("x")})
		require.GreaterOrEqual(t, got, time.Hour)
		require.Less(t, got, time.Hour+time.Second)
		p.noteSuccess()
	}
	now := time.Date(2026, 11, 20, 10, 15, 30, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-5": 0, "1e9": 0, "999999999": maxRetryAfter, "99999999999999999999": 0,
		"Fri, 20 Nov 2026 10:16:30 GMT": time.Minute, "Fri, 20 Nov 2020 10:16:30 GMT": 0, "Fri, 20 Nov 2099 10:16:30 GMT": maxRetryAfter,
	} {
		require.Equal(t, want, retryAfter(header, now), header)
	}
}
