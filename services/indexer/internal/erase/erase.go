// Package erase takes the payloads of removed posts, of erased accounts and of authors' former
// profiles and handles out of the stream of events and the dead letters, within a stated time of
// their removal. Their bytes leave the server's files, not only its answers.
//
// A pass reads the stream up to shortly before its end: what is new since the last pass, and of
// what was read before only where the index says that something was removed (package store,
// payloads). The first pass, the first after a rebuild, and those for which dead letters wait read
// everything. For every create, update and author event that a pass reads, it asks the live index
// for evidence that the content is gone (write.Writer.Gone), and erases what is. It promises:
//
//   - Nothing is erased without evidence. A version of a post that is there stays, hidden or not,
//     however old, back to when it came in or came again: a rebuilt index takes the post's place
//     from the first one.
//   - What has no payload stays: removals, account and sync events, positions. So do the stream's
//     first and last messages, and everything of the last hour.
//   - The stream without what was erased folds to the same index: of an old #sync, whose end is not
//     stated, the first replacement and the message that ends it stay, and a rebuild asks the live
//     index for the markers and floors that it can no longer make (write.Writer.Recall,
//     RecallFloors).
//   - A pass may end anywhere and be started again, by another indexer too. The evidence stays true,
//     so it needs no fencing.
//
// What it cannot do: an edited post keeps the payloads of its former versions until it is removed,
// and a post that came again after a #sync removed it keeps those of its former life, if no pass
// came between. Nor do the two messages of an old #sync go. A server that encrypts its files only
// unlinks a message until it tidies the file; a clustered one has it in its log until that is
// compacted.
//
// How it fails: a server that is away ends the pass, and it is tried again. If no pass is completed
// in time, that is an error in the log, again and again.
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
	// MinAge is how old a message must be: ingest and a backfill may still state what it belongs to.
	MinAge = time.Hour
	// firstAfter is how long an indexer has the lease before its first pass, unless FirstAfter says
	// otherwise, and retryAfter the pause after a pass that failed.
	firstAfter = 5 * time.Minute
	retryAfter = 5 * time.Minute
	// maxInterval is the longest time between the beginnings of two passes, and passes how many
	// begin in the stated time.
	maxInterval = 24 * time.Hour
	passes      = 7
	// checkEvery is how often the time is compared with what was promised, and warnEvery how often
	// a delay is logged.
	checkEvery = time.Minute
	warnEvery  = time.Hour

	// maxPause bounds the pauses, which are as long as the work between them, so that the pass
	// takes at most half of a core or a disk.
	maxPause = time.Second
	// trimmedTries is how often a pass starts again if its first message was just trimmed, and
	// trimmedSkip how many messages it then leaves at most to be trimmed.
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
	// Unreadable are dead letters that do not state their account.
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
	// MinAge is how old a message must be; tests set less than the constant.
	MinAge time.Duration
	// FirstAfter is how long Run waits before its first pass; 0 means five minutes.
	FirstAfter time.Duration
	// OnErased and OnPass, if set, are called for each payload erased and each complete pass.
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
	var warned time.Time
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
			// That of a removal right after the end of the last pass.
			if overdue := time.Since(last.Begun) + e.MinAge - e.Within; overdue > 0 && time.Since(warned) > warnEvery {
				warned = time.Now()
				e.Logger.Error("payloads of removed posts were not erased from the stream in time", "last_complete_pass", last.Begun, "within", e.Within)
			}
		}
		if err == nil && !time.Now().Before(next) {
			next = e.passAndLog(ctx, interval)
		}
		if pause.For(ctx, min(checkEvery, max(time.Until(next), time.Second))) != nil {
			return
		}
	}
}

// passAndLog makes a pass, and returns when the next one is due.
func (e *Eraser) passAndLog(ctx context.Context, interval time.Duration) time.Time {
	begun := time.Now()
	sum, err := e.Pass(ctx)
	if err != nil {
		if ctx.Err() == nil {
			e.Logger.Warn("erasing payloads of removed posts failed; trying again", "err", err)
		}
		return time.Now().Add(retryAfter)
	}
	e.Logger.Info("erased payloads of removed posts", "messages", sum.Messages, "through", sum.Through,
		"posts", sum.Erased[Posts], "dead_letters", sum.Erased[Letters], "unreadable", sum.Erased[Unreadable], "took", time.Since(begun))
	return begun.Add(interval)
}

// last returns the last complete pass. If there was none, the time begins now.
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

// Pass makes one pass. An error leaves some of it done; the next pass does the rest.
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
	if len(p.letters.byDID) == 0 {
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
	if p.undecided {
		last.Looked = 0 // the next pass reads everything; until then the markers stay
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
	first, last uint64 // the messages to read; all but the first may be erased
	letters     letters
	// looked is the message up to which only those around due ones are read.
	looked uint64
	around
	// undecided reports that the decision about a message needs all messages before it.
	undecided bool
	sum       Summary
}

// message is a message of the stream.
type message struct {
	seq  uint64
	data []byte
	head head
	gone bool
}

// head is the part that is read of every message, of any format.
type head struct {
	Kind event.Kind `json:"kind"`
	DID  string     `json:"did"`
	Rkey string     `json:"rkey"`
	Rev  string     `json:"rev"`
	// Handle is an author's.
	Handle json.RawMessage `json:"handle"`
}

// isPost reports whether the message has a version of a post, possibly in a newer format.
func (h *head) isPost() bool {
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
	_ = json.Unmarshal(h.Handle, &handle) // without a time there is no handle
	return write.Version{DID: h.DID, Rev: h.Rev, At: handle.Time}
}

// version returns what the message says of a post or an author, if it does.
func (m *message) version() (v write.Version, ok bool) {
	switch m.head.Kind {
	case event.KindCreate, event.KindUpdate:
		return m.head.version(), m.head.isPost()
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

// open finds the messages to read, and checks that the index is of this stream.
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
	p.last, err = p.posts.StoredBefore(ctx, time.Now().Add(-p.MinAge), p.first, p.last)
	return err
}

// read reads the new messages.
func (p *pass) read(ctx context.Context) error {
	for try := 0; ; try++ {
		// From before the first one, to know which #sync may be open there.
		from := p.begin(max(p.first, p.looked+1), nil)
		started, err := p.readRange(ctx, from, p.last)
		if started || !errors.Is(err, stream.ErrTrimmed) || try == trimmedTries {
			return err
		}
		// The stream is being trimmed, and has just lost its first message. The next ones to be
		// trimmed need no pass.
		st, err := stream.GetState(ctx, p.JS)
		if err != nil {
			return err
		}
		p.first = st.First + min(trimmedSkip, (st.Last-min(st.Last, st.First))/100)
	}
}

// readRange reads the messages from a number on, up to another one. started reports that it has
// read any.
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
		if err := p.eraseGone(ctx, batch); err != nil {
			return true, err
		}
		if pause.For(ctx, min(time.Since(begun), maxPause)) != nil {
			return true, context.Cause(ctx)
		}
	}
	return started, nil
}

// eraseGone erases those messages of a batch whose content is gone.
func (p *pass) eraseGone(ctx context.Context, raw []stream.Message) error {
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
		if p.mayErase(m) {
			if err := p.erase(ctx, m.seq); err != nil {
				return err
			}
		}
		p.letters.read(m)
	}
	return nil
}

// note stores in the index which versions the new messages of a batch have.
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
