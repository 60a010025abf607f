package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/test/process"
)

const (
	// paceEvery is how often a growing count is read.
	paceEvery = 20 * time.Millisecond
	// paceLimit bounds the time in which a service must process the archive.
	paceLimit = 5 * time.Minute
	// peerStream is the stream that measures NATS's own rate.
	peerStream = "PEER"
)

// pace is the rate of a count per second: between the first and the last growth, to exclude the
// start of a process, or from the start if most of it came at once.
type pace struct {
	began, first, last time.Time
	from, to           float64
}

func (p *pace) see(n float64) {
	if n <= p.to {
		return
	}
	p.last, p.to = time.Now(), n
	if p.first.IsZero() {
		p.first, p.from = p.last, n
	}
}

func (p *pace) perSecond() float64 {
	if p.to-p.from < p.to/2 {
		return p.to / p.last.Sub(p.began).Seconds()
	}
	return (p.to - p.from) / p.last.Sub(p.first).Seconds()
}

// follow reads count until it is want, and returns its rate.
func follow(ctx context.Context, p *process.Program, want float64, count func(context.Context) (float64, error)) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, paceLimit)
	defer cancel()
	seen := pace{began: time.Now()}
	err := until(ctx, paceEvery, func() (bool, error) {
		n, err := count(ctx)
		if err != nil {
			return false, err
		}
		seen.see(n)
		return n >= want, p.Alive()
	})
	if err != nil {
		return 0, fmt.Errorf("follow %s, at %.0f of %.0f: %w: %s", p.Name, seen.to, want, err, p.Tail())
	}
	return seen.perSecond(), nil
}

// fillStream lets ingest read the archive.
func (r *runner) fillStream(ctx context.Context) error {
	_, err := r.ingestArchive(ctx)
	return err
}

// ingestArchive lets ingest read the whole archive into new streams, and returns the archive's
// events per second.
func (r *runner) ingestArchive(ctx context.Context) (float64, error) {
	if err := r.ingest.Terminate(); err != nil {
		return 0, err
	}
	if err := r.emptyStreams(ctx); err != nil {
		return 0, err
	}
	if err := r.startIngest(); err != nil {
		return 0, err
	}
	first := r.archive.last - uint64(r.archive.events)
	rate, err := follow(ctx, r.ingest, float64(r.archive.events), func(ctx context.Context) (float64, error) {
		posts, err := r.js.Stream(ctx, stream.Posts)
		if err != nil {
			return 0, notYet(err) // ingest has not created it yet
		}
		msg, err := posts.GetLastMsgForSubject(ctx, stream.Subject(event.KindCreate))
		if err != nil {
			return 0, notYet(err)
		}
		ev, err := event.Decode(msg.Data)
		if err != nil {
			return 0, err
		}
		return float64(max(ev.Source.Seq, first) - first), nil
	})
	r.peak(r.ingest)
	return rate, err
}

func notYet(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	return fmt.Errorf("look at the stream's last post: %w", err)
}

// measureIngest measures reading the archive into the stream.
func (r *runner) measureIngest(ctx context.Context) error {
	archive := Figure{Name: "archive to stream, events", Unit: "/s", Peer: "the official client, decoding and discarding", Bar: .4}
	appends := Figure{Name: "messages stored while appending", Unit: "/s", Peer: "the same messages in NATS's atomic batches of 1,000", Bar: .9}
	err := r.turns(ctx, func() error {
		p, err := r.peer(peerClient, r.upstream.URL(), strconv.FormatUint(r.archive.last, 10))
		if err != nil {
			return err
		}
		var out clientResult
		if err := r.await(ctx, p, &out); err != nil {
			return err
		}
		if out.Events < r.archive.events {
			return fmt.Errorf("the official client read %d of %d events", out.Events, r.archive.events)
		}
		archive.Theirs = append(archive.Theirs, float64(out.Events)/out.Took.Seconds())
		r.spend("event that the official client reads", out.Events, map[string]time.Duration{"client": out.CPU})
		return nil
	}, func() error {
		var rate float64
		worked, err := r.worked(func() (err error) {
			rate, err = r.ingestArchive(ctx)
			return err
		}, func() *process.Program { return r.nats }, func() *process.Program { return r.ingest })
		if err != nil {
			return err
		}
		archive.Ours = append(archive.Ours, rate)
		delete(worked, "postgres")
		r.spend("event of the archive", r.archive.events, worked)
		took, err := r.metric("tagstream_ingest_append_duration_seconds_sum")
		if err != nil {
			return err
		}
		st, err := stream.GetState(ctx, r.js)
		if err != nil {
			return err
		}
		appends.Ours = append(appends.Ours, float64(st.Last)/took)
		theirs, err := r.natsRate(ctx, st.Last)
		appends.Theirs = append(appends.Theirs, theirs)
		return err
	})
	r.figure(archive)
	r.figure(appends)
	return err
}

// await waits for the end of a peer and parses its output.
func (r *runner) await(ctx context.Context, p *process.Program, into any) error {
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.End()
		return context.Cause(ctx)
	}
	if err := json.Unmarshal([]byte(p.Output()), into); err != nil {
		return fmt.Errorf("read what %s says: %w: %s", p.Name, err, p.Tail())
	}
	return nil
}

// metric returns the value of one of ingest's metrics.
func (r *runner) metric(name string) (float64, error) {
	_, text := process.Fetch("http://" + r.ingest.Ops + "/metrics")
	for line := range strings.SplitSeq(text, "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("ingest has no metric %s", name)
}

// natsRate stores the stream's messages in another one like it, in the largest atomic batches, one
// after the other, and returns the messages per second.
func (r *runner) natsRate(ctx context.Context, last uint64) (float64, error) {
	posts, err := r.js.Stream(ctx, stream.Posts)
	if err != nil {
		return 0, fmt.Errorf("look up the stream: %w", err)
	}
	cfg := posts.CachedInfo().Config
	cfg.Name, cfg.Subjects = peerStream, []string{peerStream}
	if _, err := r.js.CreateStream(ctx, cfg); err != nil {
		return 0, fmt.Errorf("create a stream like ours: %w", err)
	}
	reader, err := stream.OpenReader(ctx, r.js, 1)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	var took time.Duration
	n := 0
	for seq := uint64(0); seq < last; {
		batch, err := reader.Next(ctx, stream.MaxBatch, time.Second)
		if err != nil {
			return 0, err
		}
		began := time.Now()
		if err := r.storeBatch(ctx, batch); err != nil {
			return 0, err
		}
		took += time.Since(began)
		n, seq = n+len(batch), batch[len(batch)-1].Seq
	}
	if err := r.js.DeleteStream(ctx, peerStream); err != nil {
		return 0, fmt.Errorf("delete the stream like ours: %w", err)
	}
	return float64(n) / took.Seconds(), nil
}

func (r *runner) storeBatch(ctx context.Context, batch []stream.Message) error {
	id := nuid.Next()
	for i, m := range batch {
		msg := &nats.Msg{Subject: peerStream, Data: m.Data, Header: nats.Header{"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {strconv.Itoa(i + 1)}}}
		if i+1 < len(batch) {
			if err := r.conn.PublishMsg(msg); err != nil {
				return fmt.Errorf("publish a batch: %w", err)
			}
			continue
		}
		msg.Header.Set("Nats-Batch-Commit", "1")
		answer, err := r.conn.RequestMsgWithContext(ctx, msg)
		if err != nil {
			return fmt.Errorf("publish a batch: %w", err)
		}
		if !strings.Contains(string(answer.Data), `"count":`+strconv.Itoa(len(batch))) {
			return fmt.Errorf("publish a batch: %s", answer.Data)
		}
	}
	return nil
}
