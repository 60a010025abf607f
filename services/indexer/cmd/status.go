package cmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/service/dbsettings"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/stream"
)

// Status prints how far the index and the stream are, and who writes them: a table on a terminal,
// else a JSON object.
type Status struct {
	servers `embed:""`
}

// statusTimeout bounds each request: NATS does not answer a user without the right.
const statusTimeout = 3 * time.Second

// notKnown stands for what this user may not read from the stream.
const notKnown = "not known"

type statusJSON struct {
	IndexedThrough time.Time `json:"indexedThrough"`
	LagSeconds     float64   `json:"lagSeconds"`
	LagMessages    uint64    `json:"lagMessages"`
	Posts          int64     `json:"posts"`
	VisiblePosts   int64     `json:"visiblePosts"`
	Tags           int64     `json:"tags"`
	DeadLetters    int64     `json:"deadLetters"`
	Sweeping       int64     `json:"sweeping"`
	Checkpoint     uint64    `json:"checkpoint"`
	Host           string    `json:"host"`
	HostSeq        uint64    `json:"hostSeq"`
	StreamFirst    uint64    `json:"streamFirst"`
	StreamLast     uint64    `json:"streamLast"`
	StreamBytes    uint64    `json:"streamBytes"`
	DatabaseBytes  int64     `json:"databaseBytes"`
	Ingest         string    `json:"ingest"`
	Indexer        string    `json:"indexer"`
}

// Run asks both servers.
func (s *Status) Run(ctx context.Context, p *service.Process) error {
	options, nc, _, err := s.open(ctx, p, dbsettings.API)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := stream.JetStream(nc, s.NATS.Domain)
	if err != nil {
		return err
	}
	reader, err := query.Open(ctx, options)
	if err != nil {
		return err
	}
	defer reader.Close()
	asked, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	index, err := reader.Status(asked)
	if err != nil {
		return err
	}
	st, err := ask(ctx, js, stream.GetState)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	ingest, err := ask(ctx, js, stream.Holder)
	if err != nil {
		ingest = notKnown
	}
	cp := index.Checkpoint
	out := statusJSON{
		IndexedThrough: cp.Source.NetworkTime().UTC(), LagMessages: st.Last - min(st.Last, cp.Seq),
		Posts: index.Posts, VisiblePosts: index.VisiblePosts, Tags: index.Tags, DeadLetters: index.DeadLetters, Sweeping: index.Sweeps,
		Checkpoint: cp.Seq, Host: cp.Source.Host, HostSeq: cp.Source.Seq,
		StreamFirst: st.First, StreamLast: st.Last, StreamBytes: st.Bytes, DatabaseBytes: index.DatabaseBytes,
		Ingest: ingest, Indexer: index.Holder,
	}
	if cp.Seq > 0 {
		out.LagSeconds = index.Now.Sub(out.IndexedThrough).Seconds()
	}
	return printStatus(p, out)
}

func ask[T any](ctx context.Context, js jetstream.JetStream, question func(context.Context, jetstream.JetStream) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return question(ctx, js)
}

func printStatus(p *service.Process, s statusJSON) error {
	if !p.Terminal {
		return p.Answer(s, "")
	}
	t := p.Table()
	free := func(holder string) string {
		if holder == "" {
			return "none"
		}
		return holder
	}
	var errs []error
	for _, row := range [][2]any{
		{"indexed through", fmt.Sprintf("%s, %s ago", s.IndexedThrough.Format(time.RFC3339), time.Duration(s.LagSeconds*float64(time.Second)).Round(time.Second))},
		{"lag", fmt.Sprintf("%d messages", s.LagMessages)},
		{"posts", fmt.Sprintf("%d, %d visible", s.Posts, s.VisiblePosts)},
		{"tags", s.Tags},
		{"dead letters", s.DeadLetters},
		{"accounts in progress", s.Sweeping},
		{"checkpoint", fmt.Sprintf("%d, from %s %d", s.Checkpoint, s.Host, s.HostSeq)},
		{"stream", fmt.Sprintf("%d to %d, %d bytes", s.StreamFirst, s.StreamLast, s.StreamBytes)},
		{"database", fmt.Sprintf("%d bytes", s.DatabaseBytes)},
		{"ingest's lease", free(s.Ingest)},
		{"indexer's lease", free(s.Indexer)},
	} {
		errs = append(errs, t.Row(nil, row[0], row[1]))
	}
	return errors.Join(append(errs, t.Close())...)
}
