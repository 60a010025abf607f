package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrLeaseLost is the cause of the context from Lease.Acquire when another holder may have the
// lease.
var ErrLeaseLost = errors.New("the writer's lease was lost")

// leaseKey is the key of the writer's lease in the bucket of leases.
const leaseKey = "ingest"

// leaseStream is the bucket's stream, leaseSubject the key's subject in it.
const (
	leaseStream  = "KV_" + Leases
	leaseSubject = "$KV." + Leases + "." + leaseKey
)

// Lease elects the one writer. The server drops a lease that was not renewed for LeaseTTL; no
// clocks are compared. A lease is for election, not safety: if a holder sleeps through the end of
// its lease, the Writer's fence makes it harmless.
type Lease struct {
	js  jetstream.JetStream
	id  string
	ttl time.Duration // that of the bucket; tests have less patience
	// OnWait, if set, is called with the reason why the lease cannot be taken, each time the reason
	// changes ("" when the lease is held). elsewhere reports that another program holds it.
	OnWait func(reason string, elsewhere bool)
}

// NewLease returns the lease for the run of a program with that unique id.
func NewLease(js jetstream.JetStream, id string) *Lease {
	return &Lease{js: js, id: id, ttl: LeaseTTL}
}

// holding is a lease that is held.
type holding struct {
	kv  jetstream.KeyValue
	rev uint64 // the key's revision
	// until is the earliest time at which the server may give the lease to another holder, counted
	// from before the last renewal was sent.
	until time.Time
}

// Acquire waits for the lease and then renews it. held ends with the cause ErrLeaseLost when the
// lease may be lost. release ends held and gives the lease back. Canceling ctx ends both the wait
// and held; the error is that of ctx.
func (l *Lease) Acquire(ctx context.Context) (held context.Context, release func(), err error) {
	h, err := l.await(ctx)
	if err != nil {
		return nil, nil, err
	}
	held, end := context.WithCancelCause(ctx)
	renewing := make(chan struct{})
	go func() {
		defer close(renewing)
		if err := l.hold(held, h); err != nil {
			end(err)
		}
	}()
	return held, func() {
		end(context.Canceled)
		<-renewing
		l.giveBack(context.WithoutCancel(ctx), h.kv)
	}, nil
}

// attemptTimeout bounds one exchange with the server, so that three fit into the life of a lease.
func (l *Lease) attemptTimeout() time.Duration { return l.ttl / 3 }

// await waits until it has the lease.
func (l *Lease) await(ctx context.Context) (*holding, error) {
	reason := "unset"
	say := func(r string, elsewhere bool) {
		if r != reason && l.OnWait != nil {
			l.OnWait(r, elsewhere)
		}
		reason = r
	}
	var freed <-chan struct{}
	stop, watching := func() {}, false
	defer func() { stop() }()
	for {
		attempt, cancel := context.WithTimeout(ctx, l.attemptTimeout())
		h, holder, err := l.tryAcquire(attempt)
		cancel()
		switch {
		case err == nil && h != nil:
			say("", false)
			return h, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			say("lease store not reachable: "+err.Error(), false)
		default:
			say("held by "+holder, true)
			if !watching {
				watching = true
				freed, stop = l.watch(ctx)
				continue // it may have been given back before the watch began
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-freed:
		// A lease that expires sends no notification.
		case <-time.After(l.ttl / 3):
		}
	}
}

// Holder returns the id of the lease's holder, "" if the lease is free.
func Holder(ctx context.Context, js jetstream.JetStream) (string, error) {
	owner, _, err := (&Lease{js: js}).look(ctx)
	return owner, err
}

// FreeLease gives back the lease of a writer that is known to be dead.
func FreeLease(ctx context.Context, js jetstream.JetStream) error {
	kv, err := js.KeyValue(ctx, Leases)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil
	}
	if err == nil {
		err = kv.Delete(ctx, leaseKey)
	}
	if err != nil {
		return fmt.Errorf("free the lease of a writer that is dead: %w", err)
	}
	return nil
}

// watch returns a channel that signals that the lease was given back, and a function that stops the
// watch. The watch only shortens the wait: if it cannot be set up, the channel never signals.
func (l *Lease) watch(ctx context.Context) (freed <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	begin, done := context.WithTimeout(ctx, l.attemptTimeout())
	defer done()
	kv, err := l.js.KeyValue(begin, Leases)
	if err != nil {
		return nil, cancel
	}
	w, err := kv.Watch(ctx, leaseKey, jetstream.UpdatesOnly())
	if err != nil {
		return nil, cancel
	}
	out := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range w.Updates() {
			if e == nil || e.Operation() == jetstream.KeyValuePut {
				continue
			}
			select {
			case out <- struct{}{}:
			default: // a signal is waiting already
			}
		}
	}()
	return out, func() {
		cancel()
		_ = w.Stop() // the subscription may be gone with its connection
		<-ended
	}
}

// tryAcquire makes one attempt. Without an error it returns the holding, or the id of the current
// holder.
func (l *Lease) tryAcquire(ctx context.Context) (h *holding, holder string, err error) {
	kv, err := l.js.KeyValue(ctx, Leases)
	if err != nil {
		return nil, "", fmt.Errorf("open bucket %s: %w", Leases, err)
	}
	owner, rev, err := l.look(ctx)
	if err != nil {
		return nil, "", err
	}
	if owner != "" && owner != l.id {
		return nil, owner, nil
	}
	// Free, or ours: an earlier attempt failed but took effect. Its time counts from now.
	until := time.Now().Add(l.ttl)
	if rev, err = kv.Update(ctx, leaseKey, []byte(l.id), rev); err != nil {
		if owner, _, lookErr := l.look(ctx); lookErr == nil && owner != "" && owner != l.id {
			return nil, owner, nil // it was faster
		}
		return nil, "", fmt.Errorf("take lease: %w", err)
	}
	return &holding{kv, rev, until}, "", nil
}

// look returns the owner of the lease, "" if it is free, and the revision that the next write must
// name. A deleted key has no value.
func (l *Lease) look(ctx context.Context) (owner string, rev uint64, err error) {
	msg, err := askLeader(ctx, l.js, leaseStream, question{LastFor: leaseSubject})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("look at the lease: %w", err)
	}
	return string(msg.Data), msg.Sequence, nil
}

// hold renews the lease until ctx ends, and returns nil, or until the lease may be lost, and
// returns ErrLeaseLost.
func (l *Lease) hold(ctx context.Context, h *holding) error {
	next := l.ttl / 3
	for {
		wait := min(next, time.Until(h.until))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if !time.Now().Before(h.until) {
			return ErrLeaseLost
		}
		attempt, cancel := context.WithTimeout(ctx, min(l.attemptTimeout(), time.Until(h.until)))
		err := l.renew(attempt, h)
		cancel()
		switch {
		case err == nil:
			next = l.ttl / 3
		case errors.Is(err, errLeaseTaken):
			return ErrLeaseLost
		default:
			next = l.ttl / 30 // a server that just came back is in time
		}
	}
}

var errLeaseTaken = errors.New("the lease ended or has another holder")

// renew makes one attempt.
func (l *Lease) renew(ctx context.Context, h *holding) error {
	sent := time.Now()
	rev, err := h.kv.Update(ctx, leaseKey, []byte(l.id), h.rev)
	if err == nil {
		h.rev, h.until = rev, sent.Add(l.ttl)
		return nil
	}
	owner, rev, lookErr := l.look(ctx)
	switch {
	case lookErr != nil:
		return err
	case owner != l.id:
		return errLeaseTaken
	}
	// Ours. A new revision is that of a renewal that failed but took effect, this one or an earlier
	// one: the next renewal builds on it.
	h.rev = rev
	return err
}

// giveBack frees the lease if it is still ours. This only saves time: otherwise the lease expires.
func (l *Lease) giveBack(ctx context.Context, kv jetstream.KeyValue) {
	ctx, cancel := context.WithTimeout(ctx, l.attemptTimeout())
	defer cancel()
	owner, rev, err := l.look(ctx)
	if err != nil || owner != l.id {
		return
	}
	_ = kv.Delete(ctx, leaseKey, jetstream.LastRevision(rev))
}
