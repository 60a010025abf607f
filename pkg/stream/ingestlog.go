package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

// LogEntry is one line of the ingest log: a connection, a failure, a start, a
// stop.
type LogEntry struct {
	At time.Time `json:"at"`
	// What is one of a short list: started, connected, disconnected, switched,
	// failed, skipped, gap, fenced, stopped, backfill, reconcile.
	What     string         `json:"what"`
	Host     string         `json:"host,omitempty"`
	Position event.Position `json:"position,omitzero"`
	// Detail is one sentence for a person.
	Detail string `json:"detail,omitempty"`
}

// PutLog appends an entry to the ingest log.
func PutLog(ctx context.Context, js jetstream.JetStream, e LogEntry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode log entry %q: %w", e.What, err)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if _, err := js.Publish(ctx, ingestLogSubject, data); err != nil {
		return fmt.Errorf("append to %s: %w", IngestLog, err)
	}
	return nil
}

// Log calls fn with the newest limit entries of the ingest log, oldest first, until fn returns an
// error, and returns that error.
func Log(ctx context.Context, js jetstream.JetStream, limit int, fn func(LogEntry) error) error {
	s, err := js.Stream(ctx, IngestLog)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", IngestLog, err)
	}
	st := s.CachedInfo().State
	if st.Msgs == 0 {
		return nil
	}
	first := max(st.FirstSeq, st.LastSeq-min(uint64(limit), st.LastSeq)+1)
	for seq := first; seq <= st.LastSeq; seq++ {
		msg, err := askLeader(ctx, js, IngestLog, question{Seq: seq})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // trimmed or removed
		}
		var e LogEntry
		if err == nil {
			err = json.Unmarshal(msg.Data, &e)
		}
		if err != nil {
			return fmt.Errorf("read message %d of %s: %w", seq, IngestLog, err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}
