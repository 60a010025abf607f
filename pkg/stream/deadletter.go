package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DeadLetter is a message that could not be applied, with why.
type DeadLetter struct {
	// Seq is the message's sequence number in the stream of events.
	Seq uint64 `json:"seq"`
	// Reason is one of a closed list, for counting; Error says more.
	Reason string    `json:"reason"`
	Error  string    `json:"error"`
	At     time.Time `json:"at"`
	// Payload is the message as it was stored.
	Payload []byte `json:"payload"`
}

// PutDeadLetter stores d and returns when the server has acknowledged it. A
// letter that is put again (the batch around it was applied twice) is stored
// once: its id is the sequence number, within the server's window of two
// minutes.
func PutDeadLetter(ctx context.Context, js jetstream.JetStream, d DeadLetter) error {
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode dead letter %d: %w", d.Seq, err)
	}
	msg := nats.NewMsg(deadLetterSubject)
	msg.Data = data
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if _, err := js.PublishMsg(ctx, msg, jetstream.WithMsgID(fmt.Sprintf("posts-%d", d.Seq))); err != nil {
		return fmt.Errorf("store dead letter %d: %w", d.Seq, err)
	}
	return nil
}
