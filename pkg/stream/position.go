package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
)

// positionKey is the key of the writer's position in the bucket of positions.
const positionKey = "ingest"

const (
	positionStream  = "KV_" + Positions
	positionSubject = "$KV." + Positions + "." + positionKey
)

// PutPosition stores how far upstream was read, out of reach of trimming. Everything up to it must
// be stored in the stream: the position counts if the stream is empty.
func PutPosition(ctx context.Context, js jetstream.JetStream, p event.Position) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode position: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	kv, err := js.KeyValue(ctx, Positions)
	if err == nil {
		_, err = kv.Put(ctx, positionKey, data)
	}
	if err != nil {
		return fmt.Errorf("store the position %d of %s: %w", p.Seq, p.Host, err)
	}
	return nil
}

// GetPosition returns the last stored position or, if there is none, the one in the newest entry of
// the ingest log that has a position. It is zero if neither has one.
func GetPosition(ctx context.Context, js jetstream.JetStream) (event.Position, error) {
	var p event.Position
	msg, err := askLeader(ctx, js, positionStream, question{LastFor: positionSubject})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), isCode(err, jetstream.JSErrCodeStreamNotFound):
		return p, Log(ctx, js, positionEntries, func(e LogEntry) error {
			if (e.What == logConnected || e.What == logStopped) && !e.Position.IsZero() {
				p = e.Position
			}
			return nil
		})
	case err != nil:
		return p, fmt.Errorf("read the position: %w", err)
	case len(msg.Data) == 0: // deleted
		return p, nil
	}
	if err := json.Unmarshal(msg.Data, &p); err != nil {
		return p, fmt.Errorf("read the position: %w", err)
	}
	return p, nil
}

const (
	// positionEntries is how many log entries are searched for a position.
	positionEntries = 1000

	logConnected = "connected"
	logStopped   = "stopped"
)
