// Package erase takes the payloads of removed posts, of erased accounts and of authors' former
// profiles and handles out of the stream of events and the dead letters, within a stated time of
// their removal. Their bytes leave the server's files, not only its answers.
//
// A pass reads the stream up to shortly before its end: what is new since the last pass, and of
// what was looked at before only where the index says that something was removed (package store,
// payloads). The first pass, the first after a rebuild, and those for which dead letters wait read
// all. For every create, update and author that it reads it asks the live index for evidence that
// what it says is gone (write.Writer.Gone), and erases what is. It promises:
//
//   - Nothing is erased without evidence. A version of a post that is there stays,
//     hidden or not, however old, back to when it came in or came again: a rebuilt
//     index takes the post's place from the first one.
//   - What has no payload stays: removals, account and sync events, positions. So
//     do the stream's first and last messages, and everything of the last hour.
//   - The stream without what was erased folds to the same index: of an old #sync,
//     whose end is not said, the first replacement and the message that ends it stay,
//     and a rebuild asks the live index for the markers and floors that it cannot make
//     any more (write.Writer.Recall, RecallFloors).
//   - A pass may end anywhere and be begun again, by another indexer too. The
//     evidence stays true, so it needs no fencing.
//
// What it cannot do: an edited post keeps the payloads of its former versions until
// it is removed, and one that came again after a #sync took it away those of its former
// life, if no pass came between. Nor do the two messages of an old #sync go. A server
// that encrypts its files only unlinks a message until it tidies the file; a clustered one has it in its log
// until that is compacted.
//
// How it fails: a server that is away ends the pass, and it is tried again. If no
// pass is completed in time, that is an error in the log, again and again.
package erase

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/pause"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/stream"
)

const (
	// Settle is how old a message is before it is looked at: ingest and a backfill
	// may still say what it belongs to.
	Settle = time.Hour
	// firstAfter is how long an indexer has the lease before its first pass,
	// unless FirstAfter says otherwise, and retryAfter the pause after a pass that
	// failed.
	firstAfter = 5 * time.Minute
	retryAfter = 5 * time.Minute
	// maxInterval is the longest time from the beginning of a pass to that of the
	// next, and passes how many begin in the stated time.
	maxInterval = 24 * time.Hour
	passes      = 7
	// lookEvery is how often the time is compared with what was promised, and
	// sayEvery how often it is said that it is over.
	lookEvery = time.Minute
	sayEvery  = time.Hour

	// maxPause bounds the pauses, which are as long as the work between them, so
	// that the pass takes at most half of a core or a disk.
	maxPause = time.Second
	// trimmedTries is how often a pass begins again where what it would begin with
	// was just trimmed off, and trimmedSkip how many messages it leaves at most to
	// be trimmed then.
	trimmedTries = 5
	trimmedSkip  = 1000
	// requestTimeout bounds one exchange with a server.
	requestTimeout = 30 * time.Second
)

// What is erased, as it is counted.
const (
	// Posts are messages of the stream of events.
	Posts = "posts"
	// Letters are dead letters of what is gone.
	Letters = "dead_letters"
	// Unreadable are dead letters that do not say what they are of.
	Unreadable = "unreadable_dead_letters"
)

// Kinds lists them.
var Kinds = []string{Posts, Letters, Unreadable}

// Eraser erases. Its fields are set before use and not changed after.
type Eraser struct {
	JS jetstream.JetStream
	// Writer has no lease.
	Writer *write.Writer
	Logger *slog.Logger
	// Within is the time from a removal until the payload is gone.
	Within time.Duration
	// Settle is how old messages are left alone, Settle unless it is set otherwise
	// by a test.
	Settle time.Duration
	// FirstAfter is how long Run waits before its first pass; 0 means five minutes.
	FirstAfter time.Duration
	// OnErased and OnPass, if set, hear of what was erased and of complete passes.
	OnErased func(kind string)
	OnPass   func(begun time.Time)
}

// Summary is what a pass did.
type Summary struct {
	// Messages were read, and Through is the number of the last one.
	Messages, Through uint64
	// Erased counts by kind.
	Erased map[string]int
}

// Run makes passes until ctx ends.
func (e *Eraser) Run(ctx context.Context) {
	interval := min(maxInterval, e.Within/passes)
	next := time.Now().Add(cmp.Or(e.FirstAfter, firstAfter))
	var said time.Time
	for {
		last, err := e.last(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			e.Logger.Warn("could not read when payloads of removed posts were last erased", "err", err)
		case err == nil:
			if last.Through > 0 {
				if due := last.Begun.Add(interval); due.After(next) {
					next = due
				}
			}
			// What was removed right after what the last pass looked at.
			if overdue := time.Since(last.Begun) + e.Settle - e.Within; overdue > 0 && time.Since(said) > sayEvery {
				said = time.Now()
				e.Logger.Error("payloads of removed posts were not erased from the stream in time", "last_complete_pass", last.Begun, "within", e.Within)
			}
		}
		if err == nil && !time.Now().Before(next) {
			begun := time.Now()
			sum, err := e.Pass(ctx)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				e.Logger.Warn("erasing payloads of removed posts failed; trying again", "err", err)
				next = time.Now().Add(retryAfter)
			default:
				e.Logger.Info("erased payloads of removed posts", "messages", sum.Messages, "through", sum.Through,
					"posts", sum.Erased[Posts], "dead_letters", sum.Erased[Letters], "unreadable", sum.Erased[Unreadable], "took", time.Since(begun))
				next = begun.Add(interval)
			}
		}
		if pause.For(ctx, min(lookEvery, max(time.Until(next), time.Second))) != nil {
			return
		}
	}
}

// last returns the last complete pass. Where there was none, the time begins now.
func (e *Eraser) last(ctx context.Context) (write.Erasure, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	last, err := e.Writer.Erasure(ctx)
	if err != nil {
		return last, err
	}
	if last.Begun.IsZero() {
		last.Begun = time.Now().UTC()
		return last, e.Writer.SetErasure(ctx, last)
	}
	if last.Through > 0 && e.OnPass != nil {
		e.OnPass(last.Begun)
	}
	return last, nil
}

func (e *Eraser) recorded(ctx context.Context) (write.Erasure, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return e.Writer.Erasure(ctx)
}

// Pass makes one pass. An error leaves some of it done; the next pass does the
// rest.
func (e *Eraser) Pass(ctx context.Context) (Summary, error) {
	p := &pass{Eraser: e, sum: Summary{Erased: map[string]int{}}}
	begun := time.Now().UTC()
	last, err := e.recorded(ctx)
	if err != nil {
		return p.sum, err
	}
	if err := p.open(ctx); err != nil {
		return p.sum, err
	}
	if err := p.letters.load(ctx, e, p.last); err != nil {
		return p.sum, err
	}
	if len(p.letters.of) == 0 {
		p.looked = min(last.Looked, p.last)
	}
	if err := p.readDue(ctx); err != nil {
		return p.sum, err
	}
	if err := p.read(ctx); err != nil {
		return p.sum, err
	}
	if err := p.eraseLetters(ctx, begun); err != nil {
		return p.sum, err
	}
	p.sum.Through = p.last
	last.Begun, last.Looked = begun, p.sum.Through
	if p.lost {
		last.Looked = 0 // and what shows it to be removed has to wait for that pass
	} else {
		last.Through = p.sum.Through
	}
	if err := e.Writer.SetErasure(ctx, last); err != nil {
		return p.sum, err
	}
	if e.OnPass != nil {
		e.OnPass(begun)
	}
	return p.sum, nil
}

// pass is the state of one pass.
type pass struct {
	*Eraser
	posts       *stream.Eraser
	first, last uint64 // the messages to look at, all but the first may be erased
	letters     letters
	// looked is up to where messages are read only around those that are due.
	looked uint64
	around
	// lost says that a message could not be decided about without all before it.
	lost bool
	sum  Summary
}

// message is one of the stream, as far as it is looked at.
type message struct {
	seq  uint64
	data []byte
	head head
	gone bool
}

// head is what is read of every message, leniently.
type head struct {
	Kind event.Kind `json:"kind"`
	DID  string     `json:"did"`
	Rkey string     `json:"rkey"`
	Rev  string     `json:"rev"`
	// Handle is an author's.
	Handle json.RawMessage `json:"handle"`
}

// carries reports whether the message has a payload, and says of what.
func (h *head) carries() bool {
	return h.Kind != event.KindDelete && h.Kind != event.KindRemove &&
		event.ValidDID(h.DID) && event.ValidRkey(h.Rkey) && event.ValidRev(h.Rev)
}

func (h *head) version() write.Version {
	if h.Kind != event.KindAuthor {
		return write.Version{DID: h.DID, Rkey: h.Rkey, Rev: h.Rev}
	}
	var handle struct {
		Time time.Time `json:"time"`
	}
	_ = json.Unmarshal(h.Handle, &handle) // what has no time has no handle to speak of
	return write.Version{DID: h.DID, Rev: h.Rev, At: handle.Time}
}

// version is what the message says of a post or an author, if it does.
func (m *message) version() (v write.Version, ok bool) {
	switch m.head.Kind {
	case event.KindCreate, event.KindUpdate:
		return m.head.version(), m.head.carries()
	case event.KindAuthor:
		ev, err := event.Decode(m.data)
		if err != nil {
			return v, false
		}
		v.DID, v.Rev = ev.DID, ev.Rev
		if ev.Handle != nil {
			v.At = ev.Handle.Time
		}
		return v, true
	}
	return v, false
}

// open finds out which messages to look at, and whether the index is of this
// stream at all.
func (p *pass) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cp, err := p.Writer.Checkpoint(ctx)
	if err != nil {
		return err
	}
	st, err := stream.GetState(ctx, p.JS)
	if err != nil {
		return err
	}
	if err := stream.CheckIndex(ctx, p.JS, st, cp.Seq, cp.Source); err != nil {
		return err
	}
	if p.posts, err = stream.OpenEraser(ctx, p.JS); err != nil {
		return err
	}
	p.first, p.last = st.First, min(cp.Seq, max(st.Last, 1)-1)
	if p.last < p.first {
		return nil
	}
	p.last, err = p.posts.StoredBefore(ctx, time.Now().Add(-p.Settle), p.first, p.last)
	return err
}

// read looks at the messages.
func (p *pass) read(ctx context.Context) error {
	for try := 0; ; try++ {
		started, err := p.readFrom(ctx)
		if started || !errors.Is(err, stream.ErrTrimmed) || try == trimmedTries {
			return err
		}
		// The stream is being trimmed, and has lost what was first a moment ago.
		// What is next to go goes without us.
		st, err := stream.GetState(ctx, p.JS)
		if err != nil {
			return err
		}
		p.first = st.First + min(trimmedSkip, (st.Last-min(st.Last, st.First))/100)
	}
}

// readFrom looks at the messages that are new. started says that it has seen any.
func (p *pass) readFrom(ctx context.Context) (started bool, err error) {
	first := max(p.first, p.looked+1)
	// From before it, so that it is known which #sync may be under way.
	return p.readRange(ctx, p.begin(first, nil), p.last)
}

// readRange looks at the messages from a number on, up to another one.
func (p *pass) readRange(ctx context.Context, from, to uint64) (started bool, err error) {
	if to < from || p.last < from {
		return false, nil
	}
	for batch, err := range stream.Range(ctx, p.JS, from, to) {
		if err != nil {
			return started, err
		}
		begun := time.Now()
		started = true
		if err := p.look(ctx, batch); err != nil {
			return true, err
		}
		if pause.For(ctx, min(time.Since(begun), maxPause)) != nil {
			return true, context.Cause(ctx)
		}
	}
	return started, nil
}

// look looks at a batch, and erases what may be.
func (p *pass) look(ctx context.Context, raw []stream.Message) error {
	messages := make([]message, len(raw))
	var asked []int
	var versions []write.Version
	for i, m := range raw {
		msg := message{seq: m.Seq, data: m.Data}
		if json.Unmarshal(m.Data, &msg.head) != nil {
			msg.head = head{} // its account cannot be determined
		}
		messages[i] = msg
		if v, ok := msg.version(); ok && m.Seq > p.first && m.Seq <= p.last {
			asked, versions = append(asked, i), append(versions, v)
		}
	}
	if err := p.note(ctx, messages, asked, versions); err != nil {
		return err
	}
	gone, err := p.gone(ctx, versions)
	if err != nil {
		return err
	}
	for n, i := range asked {
		messages[i].gone = gone[n]
	}
	for _, m := range messages {
		if m.seq <= p.last {
			p.sum.Messages++
		}
		if p.decide(m) {
			if err := p.erase(ctx, m.seq); err != nil {
				return err
			}
		}
		p.letters.hear(m)
	}
	return nil
}

// note has the index note messages that it has not looked at yet.
func (p *pass) note(ctx context.Context, messages []message, asked []int, versions []write.Version) error {
	var seqs []uint64
	var fresh []write.Version
	for n, i := range asked {
		if m := messages[i]; m.seq > p.looked {
			seqs, fresh = append(seqs, m.seq), append(fresh, versions[n])
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return p.Writer.NotePayloads(ctx, fresh, seqs)
}

func (p *pass) gone(ctx context.Context, versions []write.Version) ([]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return p.Writer.Gone(ctx, versions)
}

func (p *pass) erase(ctx context.Context, seq uint64) error {
	begun := time.Now()
	attempt, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := p.posts.Erase(attempt, seq); err != nil {
		return err
	}
	if _, due := p.due[seq]; due {
		p.due[seq] = isErased
	}
	p.count(Posts)
	if pause.For(ctx, min(time.Since(begun), maxPause)) != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (p *pass) count(kind string) {
	p.sum.Erased[kind]++
	if p.OnErased != nil {
		p.OnErased(kind)
	}
}

var errForeign = errors.New("the stream has another message at that number")
