package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// jobKey is the key of the newest job of ingest in the bucket of positions.
const jobKey = "job"

const jobSubject = "$KV." + Positions + "." + jobKey

// PutJob stores the newest job where the record of before has the revision rev, 0 where there
// is none. It returns the revision.
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

// GetJob returns what was put last and its revision, none where nothing was.
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
