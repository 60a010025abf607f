package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrLeaseLost is the cause of the context that Lease.Run gave to its
// function, once another holder may have the lease.
var ErrLeaseLost = errors.New("the writer's lease was lost")

const (
	leaseKey     = "ingest"
	leaseRenew   = LeaseTTL / 3
	leaseTimeout = LeaseTTL / 3
)

// Lease elects the one writer. The server forgets a lease that was not
// renewed for LeaseTTL; no clocks are compared. It is election, not safety: a
// holder that slept through its end is made harmless by the Writer's fence.
type Lease struct {
	js jetstream.JetStream
	id string
	// OnWait, if set, hears why the lease could not be taken, each time that
	// the reason changes ("" when it is held).
	OnWait func(reason string)
}

// NewLease returns the lease for a program whose run has that unique id.
func NewLease(js jetstream.JetStream, id string) *Lease {
	return &Lease{js: js, id: id}
}

// Run waits for the lease, calls fn with a context that ends (with the cause
// ErrLeaseLost) when the lease is no longer surely held, gives the lease back,
// and returns fn's error. It returns ctx's error if ctx ends before.
func (l *Lease) Run(ctx context.Context, fn func(ctx context.Context) error) error {
	rev, err := l.acquire(ctx)
	if err != nil {
		return err
	}
	held, lose := context.WithCancelCause(ctx)
	done := make(chan struct{})
	renewed := make(chan uint64, 1)
	go func() {
		defer close(done)
		renewed <- l.renew(held, rev, lose)
	}()
	err = fn(held)
	lose(context.Canceled)
	<-done
	l.release(context.WithoutCancel(ctx), <-renewed)
	return err
}

// acquire creates the key; it exists for as long as someone renews it.
func (l *Lease) acquire(ctx context.Context) (uint64, error) {
	reason := "unset"
	say := func(r string) {
		if r != reason && l.OnWait != nil {
			l.OnWait(r)
		}
		reason = r
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, leaseTimeout)
		rev, holder, err := l.tryAcquire(attempt)
		cancel()
		switch {
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case err != nil:
			say("lease store not reachable: " + err.Error())
		case holder != "":
			say("held by " + holder)
		default:
			say("")
			return rev, nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(leaseRenew):
		}
	}
}

func (l *Lease) tryAcquire(ctx context.Context) (rev uint64, holder string, err error) {
	kv, err := l.js.KeyValue(ctx, Leases)
	if err != nil {
		return 0, "", fmt.Errorf("open bucket %s: %w", Leases, err)
	}
	rev, err = kv.Create(ctx, leaseKey, []byte(l.id))
	if err == nil {
		return rev, "", nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) {
		return 0, "", fmt.Errorf("take lease: %w", err)
	}
	entry, err := kv.Get(ctx, leaseKey)
	if err != nil {
		return 0, "unknown", nil //nolint:nilerr // it ended between the two calls: try again
	}
	if string(entry.Value()) == l.id {
		// A Create that failed but took effect.
		return entry.Revision(), "", nil
	}
	return 0, string(entry.Value()), nil
}

// renew keeps the lease until ctx ends or it is lost, and returns the last
// revision held, 0 where it is not held any more.
func (l *Lease) renew(ctx context.Context, rev uint64, lose context.CancelCauseFunc) uint64 {
	// Counted from before the renewal was sent: the server may count from then.
	deadline := time.Now().Add(LeaseTTL)
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return rev
		case <-tick.C:
		}
		sent := time.Now()
		attempt, cancel := context.WithDeadline(ctx, minTime(sent.Add(leaseTimeout), deadline))
		next, err := l.update(attempt, rev)
		cancel()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				return next
			}
			return rev
		case err == nil:
			rev, deadline = next, sent.Add(LeaseTTL)
		case errors.Is(err, errLeaseTaken), !time.Now().Before(deadline):
			lose(ErrLeaseLost)
			return 0
		}
	}
}

var errLeaseTaken = errors.New("the lease has another holder")

func (l *Lease) update(ctx context.Context, rev uint64) (uint64, error) {
	kv, err := l.js.KeyValue(ctx, Leases)
	if err != nil {
		return 0, err
	}
	next, err := kv.Update(ctx, leaseKey, []byte(l.id), rev)
	if err == nil {
		return next, nil
	}
	// Refused because of the revision: our own earlier update may have taken
	// effect although its answer was lost.
	entry, getErr := kv.Get(ctx, leaseKey)
	switch {
	case errors.Is(getErr, jetstream.ErrKeyNotFound):
		return 0, errLeaseTaken
	case getErr != nil:
		return 0, err
	case string(entry.Value()) == l.id:
		return entry.Revision(), nil
	}
	return 0, errLeaseTaken
}

// release is a courtesy: without it the lease ends after LeaseTTL.
func (l *Lease) release(ctx context.Context, rev uint64) {
	if rev == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	kv, err := l.js.KeyValue(ctx, Leases)
	if err != nil {
		return
	}
	_ = kv.Delete(ctx, leaseKey, jetstream.LastRevision(rev))
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
