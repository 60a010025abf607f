package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// jobKey is the key of ingest's newest job in the bucket of positions.
const jobKey = "job"

const jobSubject = "$KV." + Positions + "." + jobKey

// PutJob stores the newest job if the current record has revision rev, or if there is none and rev
// is 0. It returns the new revision.
func PutJob(ctx context.Context, js jetstream.JetStream, data []byte, rev uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	kv, err := js.KeyValue(ctx, Positions)
	if err == nil {
		rev, err = kv.Update(ctx, jobKey, data, rev)
	}
	if err != nil {
		return 0, fmt.Errorf("store the job: %w", err)
	}
	return rev, nil
}

// GetJob returns the stored job and its revision, or nothing if there is none.
func GetJob(ctx context.Context, js jetstream.JetStream) (data []byte, rev uint64, err error) {
	msg, err := askLeader(ctx, js, positionStream, question{LastFor: jobSubject})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), isCode(err, jetstream.JSErrCodeStreamNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, fmt.Errorf("read the job: %w", err)
	}
	return msg.Data, msg.Sequence, nil
}
