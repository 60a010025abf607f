package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Headers of the server's atomic batches (nats-architecture-and-design, ADR-50). The server
// abandons a batch that receives no message for 10 s.
const (
	batchIDHeader     = "Nats-Batch-Id"
	batchSeqHeader    = "Nats-Batch-Sequence"
	batchCommitHeader = "Nats-Batch-Commit"
)

// batchReply is the server's answer to a message that requests one.
type batchReply struct {
	Stream string              `json:"stream"`
	Seq    uint64              `json:"seq"`
	Batch  string              `json:"batch"`
	Count  int                 `json:"count"`
	Error  *jetstream.APIError `json:"error"`
}

// errCodeIncomplete is the server's code for a batch with a missing message.
const errCodeIncomplete jetstream.ErrorCode = 10176

// errNotStaged says that the server could not store a batch's first message, which is the symptom
// of a full disk.
var errNotStaged = errors.New("the server cannot stage a batch")

var errBadAnswer = errors.New("the server's answer is not an answer to a batch")

// publishBatch stores n messages, two or more, whole or not at all, and returns the sequence number
// of the last one. message makes each, when the one before has been sent. The client library's own
// version ignores ctx.
//
// A batch that is given up stays open on the server until its time-out, some 10 s.
//
// The server answers the first message, so that its absence or refusal shows before everything is
// sent, and the last one, whose answer also reports errors of those in between.
func publishBatch(ctx context.Context, nc *nats.Conn, n int, message func(i int) (*nats.Msg, error)) (seq uint64, err error) {
	id := nuid.Next()
	ids := []string{id}
	for i := range n {
		m, err := message(i)
		if err != nil {
			return 0, err
		}
		m.Header[batchIDHeader] = ids
		m.Header.Set(batchSeqHeader, strconv.Itoa(i+1))
		last := i == n-1
		if last {
			m.Header.Set(batchCommitHeader, "1")
		}
		if i > 0 && !last {
			if err := nc.PublishMsg(m); err != nil {
				return 0, fmt.Errorf("publish message %d of %d: %w", i+1, n, err)
			}
			continue
		}
		reply, err := nc.RequestMsgWithContext(ctx, m)
		if err != nil {
			return 0, fmt.Errorf("publish message %d of %d: %w", i+1, n, err)
		}
		if !last && len(reply.Data) == 0 {
			continue // staged
		}
		var r batchReply
		switch err := json.Unmarshal(reply.Data, &r); {
		case err != nil:
			return 0, fmt.Errorf("publish message %d of %d: %w: %w", i+1, n, errBadAnswer, err)
		case i == 0 && r.Error != nil && r.Error.ErrorCode == errCodeIncomplete:
			return 0, fmt.Errorf("%w: %w", errNotStaged, r.Error)
		case r.Error != nil:
			return 0, fmt.Errorf("publish message %d of %d: %w", i+1, n, r.Error)
		case !last || r.Stream != Posts || r.Batch != id || r.Count != n:
			// A server that does not know batches stores messages one by one.
			return 0, fmt.Errorf("publish message %d of %d: %w", i+1, n, errBadAnswer)
		}
		seq = r.Seq
	}
	return seq, nil
}
