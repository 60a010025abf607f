package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// askTimeout bounds a request to a stream's leader: a stream without a leader never answers.
const askTimeout = 5 * time.Second

// question names a message of a stream: the one at a number, the last one of a subject, or the next
// one of a subject from a number on.
type question struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
}

// askLeader requests a message from the stream's leader. The error is jetstream.ErrMsgNotFound if
// there is no such message, or the server's.
//
// The client library uses a direct get, which any replica answers, even a lagging one: it may not
// find a message that was just acknowledged, or return an older one as the last. Here "not found"
// means that a message is gone, and the last message says where to continue, so only the leader is
// trusted.
func askLeader(ctx context.Context, js jetstream.JetStream, stream string, q question) (*jetstream.RawStreamMsg, error) {
	var answer struct {
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	err := ask(ctx, js, "STREAM.MSG.GET."+stream, q, &answer)
	switch {
	case err != nil:
		return nil, err
	case answer.Message == nil:
		return nil, jetstream.ErrInvalidJetStreamResponse
	}
	m := answer.Message
	msg := &jetstream.RawStreamMsg{Subject: m.Subject, Sequence: m.Seq, Data: m.Data, Time: m.Time}
	if len(m.Header) > 0 {
		if msg.Header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return nil, fmt.Errorf("headers of message %d: %w", m.Seq, err)
		}
	}
	return msg, nil
}

// ask sends a request to the server's API and decodes its answer. An error in the answer is a
// *jetstream.APIError.
func ask(ctx context.Context, js jetstream.JetStream, subject string, request, answer any) error {
	data, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	prefix := jetstream.DefaultAPIPrefix
	if domain := js.Options().Domain; domain != "" {
		prefix = "$JS." + domain + ".API."
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, prefix+subject, data)
	if err != nil {
		return err
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &failed); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	if failed.Error != nil {
		return failed.Error
	}
	if err := json.Unmarshal(reply.Data, answer); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}
