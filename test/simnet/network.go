package simnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jcalabro/atmos"
	"github.com/jcalabro/atmos/cbor"
)

// PostCollection is the collection of posts, and ProfileCollection that of an account's profile,
// whose record key is ProfileRkey.
const (
	PostCollection    = "app.bsky.feed.post"
	ProfileCollection = "app.bsky.actor.profile"
	ProfileRkey       = "self"
)

// DefaultHistory is how many frames a relay can replay when Config.History is zero.
const DefaultHistory = 65_536

// Config describes a network. The zero value is a network without accounts that uses the wall
// clock.
type Config struct {
	// Seed fixes keys and DIDs.
	Seed uint64
	// Accounts is the number of accounts that exist from the start. Their creation emits nothing.
	Accounts int
	// Clock gives the time of commits, record keys and frames; nil means time.Now. A server refuses
	// revisions more than five minutes ahead of its own clock. Revisions rise even if the clock
	// does not.
	Clock func() time.Time
	// History is how many frames a relay can replay; zero means DefaultHistory.
	History int
	// LogLimit is how many of the newest entries Log keeps; zero keeps all, a negative number none.
	LogLimit int
	// Logger receives the relays' log; nil discards it.
	Logger *slog.Logger
}

// Kind is the kind of a relay frame.
type Kind string

// The kinds of frames a Network emits.
const (
	KindCommit   Kind = "commit"
	KindSync     Kind = "sync"
	KindAccount  Kind = "account"
	KindIdentity Kind = "identity"
)

// Entry is one frame that was emitted, decoded.
type Entry struct {
	Seq  int64     // the relay's sequence number, from 1 without gaps
	Time time.Time // when it was emitted, by the network's clock
	Kind Kind
	DID  string
	Rev  string // of a commit or sync; empty otherwise
	// Ops are a commit's operations in order or, for a sync, what a server emits after it: every
	// record of the repository at that moment, as a create.
	Ops []OpResult
	// Repeated reports that a sync repeats the state announced before. A server emits nothing for
	// it.
	Repeated bool
	Active   bool   // of an account
	Status   string // of an inactive account
	Handle   string // of an identity
}

// Post is a written record, with the position of its commit.
type Post struct {
	DID, Rkey, Rev, CID, URI string
	Seq                      int64 // of the relay frame
}

// account is one account on the PDS. The Network's lock guards it.
type account struct {
	handle string
	active bool
	status string
	closed int64 // the frame with which it last became inactive
	repo   *repository
	// announced is the tree root that servers have after the last frame.
	announced cbor.CID
}

// Network is a simulated network; see the package comment.
type Network struct {
	cfg Config
	log *slog.Logger

	mu         sync.Mutex
	accounts   map[string]*account
	dids       []string // in the order of creation
	lastMicros int64
	seq        int64
	frames     []frame // the newest cfg.History frames, ending with seq
	entries    []Entry
	changed    chan struct{} // closed and replaced at each frame
}

// New creates a network and its first accounts. It starts nothing; Listen does.
func New(cfg Config) (*Network, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.History <= 0 {
		cfg.History = DefaultHistory
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Network{cfg: cfg, log: cfg.Logger.With("component", "simnet"), accounts: map[string]*account{}, changed: make(chan struct{})}
	for range cfg.Accounts {
		if _, err := n.addAccount(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// StepClock returns a clock that starts at start and advances by step with every reading, for
// exactly repeatable runs.
func StepClock(start time.Time, step time.Duration) func() time.Time {
	var mu sync.Mutex
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		start = start.Add(step)
		return start
	}
}

// DIDs returns the accounts in the order of their creation.
func (n *Network) DIDs() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dids)
}

// Active returns the accounts that are active, in the order of their creation.
func (n *Network) Active() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.dids), func(did string) bool { return !n.accounts[did].active })
}

// Seq returns the sequence number of the newest frame; zero before the first.
func (n *Network) Seq() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seq
}

// Log returns the emitted frames, oldest first, as far as Config.LogLimit keeps them.
func (n *Network) Log() []Entry {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.entries)
}

// Records returns the current records of an account, as creates sorted by collection and key.
func (n *Network) Records(did string) ([]OpResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	acc, ok := n.accounts[did]
	if !ok {
		return nil, fmt.Errorf("records of %s: %w", did, ErrUnknownAccount)
	}
	return acc.repo.records(), nil
}

// Now returns the time of the network's clock.
func (n *Network) Now() time.Time { return n.cfg.Clock().UTC() }

// CreateAccount adds an account and emits its identity and its active status.
func (n *Network) CreateAccount() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	did, err := n.addAccount()
	if err != nil {
		return "", err
	}
	acc := n.accounts[did]
	if _, err := n.emitIdentity(did, acc); err != nil {
		return "", err
	}
	_, err = n.emitAccount(did, acc)
	return did, err
}

// Rename gives an account another handle and emits its identity.
func (n *Network) Rename(did, handle string) (Entry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	acc, ok := n.accounts[did]
	if !ok {
		return Entry{}, fmt.Errorf("rename %s: %w", did, ErrUnknownAccount)
	}
	acc.handle = handle
	return n.emitIdentity(did, acc)
}

// SetProfile creates or replaces an account's profile and emits that. record is as in Op.
func (n *Network) SetProfile(did string, record any) (Entry, error) {
	op := Op{Action: Create, Collection: ProfileCollection, Rkey: ProfileRkey, Record: record}
	entry, err := n.Commit(did, op)
	if errors.Is(err, ErrRecordExists) {
		op.Action = Update
		entry, err = n.Commit(did, op)
	}
	return entry, err
}

// DeleteProfile removes an account's profile and emits that.
func (n *Network) DeleteProfile(did string) (Entry, error) {
	return n.Commit(did, Op{Action: Delete, Collection: ProfileCollection, Rkey: ProfileRkey})
}

// addAccount adds an account with an empty repository. New calls it without the lock.
func (n *Network) addAccount() (string, error) {
	index := len(n.dids)
	key, err := newSigningKey(n.cfg.Seed, index)
	if err != nil {
		return "", err
	}
	did := newDID(n.cfg.Seed, index)
	r, err := newRepository(did, key, n.nextTID())
	if err != nil {
		return "", err
	}
	n.accounts[did] = &account{handle: fmt.Sprintf("user-%d.test", index), active: true, repo: r, announced: r.root}
	n.dids = append(n.dids, did)
	return did, nil
}

// Commit applies operations in one signed commit and emits it. An empty list gives an empty commit.
func (n *Network) Commit(did string, ops ...Op) (Entry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	acc, ok := n.accounts[did]
	if !ok {
		return Entry{}, fmt.Errorf("commit to %s: %w", did, ErrUnknownAccount)
	}
	since, prevRoot := acc.repo.rev, acc.repo.root
	results, diff, err := n.apply(acc.repo, ops)
	if err != nil {
		return Entry{}, err
	}
	at := n.Now()
	frame, err := commitFrame(acc.repo, n.seq+1, at, results, diff, since, prevRoot)
	if err != nil {
		return Entry{}, err
	}
	acc.announced = acc.repo.root
	return n.emit(frame, Entry{Time: at, Kind: KindCommit, DID: did, Rev: acc.repo.rev, Ops: results}), nil
}

// CreatePost writes a new post and emits it. An empty rkey means a fresh TID; record is as in Op.
func (n *Network) CreatePost(did, rkey string, record any) (Post, error) {
	return n.commitPost(did, Op{Action: Create, Rkey: rkey, Record: record})
}

// UpdatePost replaces a post's record and emits it.
func (n *Network) UpdatePost(did, rkey string, record any) (Post, error) {
	return n.commitPost(did, Op{Action: Update, Rkey: rkey, Record: record})
}

// DeletePost removes a post and emits that; the result's CID is empty.
func (n *Network) DeletePost(did, rkey string) (Post, error) {
	return n.commitPost(did, Op{Action: Delete, Rkey: rkey})
}

// commitPost commits one operation on a post.
func (n *Network) commitPost(did string, op Op) (Post, error) {
	entry, err := n.Commit(did, op)
	if err != nil {
		return Post{}, err
	}
	done := entry.Ops[0]
	return Post{DID: did, Rkey: done.Rkey, Rev: entry.Rev, CID: done.CID, URI: done.URI, Seq: entry.Seq}, nil
}

// Diverge changes a repository without emitting anything. A later Sync repairs that. Without one,
// the account's next commit breaks the chain: the server logs a verification failure and fetches
// the repository by itself.
func (n *Network) Diverge(did string, ops ...Op) ([]OpResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	acc, ok := n.accounts[did]
	if !ok {
		return nil, fmt.Errorf("diverge %s: %w", did, ErrUnknownAccount)
	}
	results, _, err := n.apply(acc.repo, ops)
	return results, err
}

// Sync applies operations without announcing them one by one, then emits a #sync of the new head.
// The server fetches the repository and emits all its records after the #sync; the entry's Ops are
// these records. A server does this at most five times a minute for one account. An inactive
// account has no #sync: a host does not announce what it does not serve.
func (n *Network) Sync(did string, ops ...Op) (Entry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	acc, ok := n.accounts[did]
	if !ok {
		return Entry{}, fmt.Errorf("sync %s: %w", did, ErrUnknownAccount)
	}
	if !acc.active {
		return Entry{}, fmt.Errorf("sync %s: %w", did, ErrInactive)
	}
	if _, _, err := n.apply(acc.repo, ops); err != nil {
		return Entry{}, err
	}
	at := n.Now()
	frame, err := syncFrame(acc.repo, n.seq+1, at)
	if err != nil {
		return Entry{}, err
	}
	entry := Entry{Time: at, Kind: KindSync, DID: did, Rev: acc.repo.rev}
	if entry.Repeated = acc.announced == acc.repo.root; !entry.Repeated {
		entry.Ops = acc.repo.records()
	}
	acc.announced = acc.repo.root
	return n.emit(frame, entry), nil
}

// SetAccountStatus changes an account's hosting status and emits it. Status is empty for a plain
// active account, otherwise one of the specification's words (deactivated, suspended, takendown,
// deleted, throttled, desynchronized) or any other. An inactive account's repository is not served,
// but it can still be written to, and survives even "deleted", so that late and misplaced commits
// can be simulated.
func (n *Network) SetAccountStatus(did string, active bool, status string) (Entry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	acc, ok := n.accounts[did]
	if !ok {
		return Entry{}, fmt.Errorf("set status of %s: %w", did, ErrUnknownAccount)
	}
	if acc.active && !active {
		acc.closed = n.seq + 1
	}
	acc.active, acc.status = active, status
	return n.emitAccount(did, acc)
}

// emitAccount emits an account's status.
func (n *Network) emitAccount(did string, acc *account) (Entry, error) {
	at := n.Now()
	frame, err := accountFrame(did, n.seq+1, at, acc.active, acc.status)
	if err != nil {
		return Entry{}, err
	}
	return n.emit(frame, Entry{Time: at, Kind: KindAccount, DID: did, Active: acc.active, Status: acc.status}), nil
}

// emitIdentity emits an account's handle.
func (n *Network) emitIdentity(did string, acc *account) (Entry, error) {
	at := n.Now()
	frame, err := identityFrame(did, n.seq+1, at, acc.handle)
	if err != nil {
		return Entry{}, err
	}
	return n.emit(frame, Entry{Time: at, Kind: KindIdentity, DID: did, Handle: acc.handle}), nil
}

// apply completes the operations and applies them at a new revision.
func (n *Network) apply(r *repository, ops []Op) ([]OpResult, []byte, error) {
	ops = slices.Clone(ops)
	for i := range ops {
		if ops[i].Collection == "" {
			ops[i].Collection = PostCollection
		}
		if ops[i].Action == Create && ops[i].Rkey == "" {
			ops[i].Rkey = n.nextTID()
		}
	}
	return r.apply(ops, n.nextTID())
}

// nextTID returns a TID above every earlier one.
func (n *Network) nextTID() string {
	n.lastMicros = max(n.cfg.Clock().UnixMicro(), n.lastMicros+1)
	return atmos.NewTID(n.lastMicros, 0).String()
}

// emit appends a frame to the log and wakes the relays.
func (n *Network) emit(data []byte, entry Entry) Entry {
	n.seq++
	entry.Seq = n.seq
	n.frames = append(n.frames, frame{did: entry.DID, sync: entry.Kind == KindSync && !entry.Repeated, data: data})
	// Trimmed in strides, so that a full history costs one copy per thousand frames instead of one
	// per frame.
	if len(n.frames) > n.cfg.History+historyStride {
		n.frames = slices.Clone(n.frames[len(n.frames)-n.cfg.History:])
	}
	if n.cfg.LogLimit >= 0 {
		n.entries = append(n.entries, entry)
		if n.cfg.LogLimit > 0 && len(n.entries) > n.cfg.LogLimit+historyStride {
			n.entries = slices.Clone(n.entries[len(n.entries)-n.cfg.LogLimit:])
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
	return entry
}

// historyStride is how far the kept frames and entries may grow past their limits before they are trimmed.
const historyStride = 1024

// errOutdated means that frames after a position are no longer kept.
var errOutdated = errors.New("frames are no longer kept")

// framesAfter returns up to limit frames after number seq. If there are none, it waits for the next
// one. The error is errOutdated if the frame after seq was trimmed, or the context's.
func (n *Network) framesAfter(ctx context.Context, seq int64, limit int) ([]frame, error) {
	for {
		n.mu.Lock()
		first := n.seq - int64(len(n.frames)) + 1
		frames, changed, last := n.frames, n.changed, n.seq
		n.mu.Unlock()
		switch {
		case seq+1 < first:
			return nil, errOutdated
		case seq < last:
			from := int(seq + 1 - first)
			return frames[from:min(from+limit, len(frames))], nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// oldest returns the sequence number before the oldest kept frame.
func (n *Network) oldest() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seq - int64(len(n.frames))
}
