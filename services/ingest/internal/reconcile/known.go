package reconcile

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
)

// maxKnown is how many posts and accounts are in memory at a time, about 100 bytes each.
const maxKnown = 500_000

// errFull says that there are more posts than one part may have.
var errFull = errors.New("too many posts for one part")

// rev is a revision in its most compact form; the zero value is below all others.
type rev [13]byte

func revOf(s string) (r rev) {
	copy(r[:], s)
	return r
}

func (r rev) below(other rev) bool { return string(r[:]) < string(other[:]) }

// post is a post that the stream has put into the index, with its state according to the stream.
type post struct {
	account uint64
	rev     rev
	shown   shown
}

// shown says what the archive has of a post.
type shown uint8

const (
	absent shown = iota
	present
	unqualified // it is there, and would not be in the index
)

// account is what the stream and the archive say about an account.
type account struct {
	status event.StatusOrder // of the newest
	hidden bool
	// highest is the highest revision seen, erased the highest when the account was deleted, and
	// replaced that of its last #sync.
	highest, erased, replaced rev
	// archived is its revision in the archive, and at the place of it; zero if it is not there.
	archived rev
	at       event.Position
}

// gone reports whether a post was erased or replaced along with the account's other posts.
func (a *account) gone(p post) bool {
	return !a.erased.below(p.rev) || p.rev.below(a.replaced)
}

// known has the posts and accounts of one part, by hashes. Two with the same hash would be
// confused; with ten million that happens once in a hundred thousand runs.
type known struct {
	seed        maphash.Seed
	part, parts uint64
	limit       int
	posts       map[uint64]post
	accounts    map[uint64]*account
}

func newKnown(seed maphash.Seed, part, parts uint64, limit int) *known {
	return &known{seed: seed, part: part, parts: parts, limit: limit, posts: map[uint64]post{}, accounts: map[uint64]*account{}}
}

func (k *known) hash(s string) uint64 { return maphash.String(k.seed, s) }

// account returns the account, or nil if it belongs to another part.
func (k *known) account(did string, add bool) (uint64, *account) {
	h := k.hash(did)
	if h%k.parts != k.part {
		return h, nil
	}
	a := k.accounts[h]
	if a == nil && add {
		a = &account{}
		k.accounts[h] = a
	}
	return h, a
}

// fold adds an event of the stream. The error is errFull.
func (k *known) fold(ev *event.Event) error {
	if ev.Kind == event.KindPosition {
		return nil
	}
	h, a := k.account(ev.DID, true)
	if a == nil {
		return nil
	}
	r, id := revOf(ev.Rev), k.hash(ev.URI())
	if a.highest.below(r) {
		a.highest = r
	}
	switch ev.Kind {
	case event.KindCreate, event.KindUpdate:
		if p, ok := k.posts[id]; !ok || p.rev.below(r) {
			k.posts[id] = post{account: h, rev: r}
		}
	case event.KindRemove, event.KindDelete:
		if p, ok := k.posts[id]; ok && p.rev.below(r) {
			delete(k.posts, id)
		}
	case event.KindSync:
		if ev.Sync != event.SyncOpen && a.replaced.below(r) {
			a.replaced = r
		}
	case event.KindAccount:
		a.setStatus(ev)
	case event.KindPosition, event.KindAuthor:
	}
	if len(k.posts)+len(k.accounts) > k.limit {
		return errFull
	}
	return nil
}

func (a *account) setStatus(ev *event.Event) {
	if !ev.ChangesStatus() {
		return
	}
	if newer, _ := a.status.Advance(ev.StatusOrder()); !newer {
		return
	}
	a.hidden = !ev.Active
	if ev.Erases() {
		a.erased = a.highest
	}
}

// readStream calls fn with the events of the stream up to a sequence number. It skips messages that
// are not events: the indexer reports them.
func readStream(ctx context.Context, js jetstream.JetStream, last uint64, fn func(*event.Event) error) error {
	st, err := stream.GetState(ctx, js)
	if err != nil || st.First > last {
		return err
	}
	for batch, err := range stream.Range(ctx, js, st.First, last) {
		if err != nil {
			return err
		}
		for _, m := range batch {
			ev, err := event.Decode(m.Data)
			if err == nil {
				err = fn(ev)
			} else if errors.Is(err, event.ErrInvalid) || errors.Is(err, event.ErrUnknownVersion) {
				err = nil
			}
			if err != nil {
				return fmt.Errorf("message %d: %w", m.Seq, err)
			}
		}
	}
	return nil
}
