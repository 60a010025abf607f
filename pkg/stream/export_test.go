package stream

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// SetTimeout sets the writer's timeout.
func (w *Writer) SetTimeout(d time.Duration) { w.timeout = d }

// NewShortLease returns a lease on a bucket whose entries last for ttl.
func NewShortLease(js jetstream.JetStream, id string, ttl time.Duration) *Lease {
	return &Lease{js: js, id: id, ttl: ttl}
}

const BatchHeader = batchHeader
