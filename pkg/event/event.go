package event

import (
	"encoding/json"
	"time"
)

// Version is the newest version that [Event.Encode] writes. A message has the lowest that
// knows its kind, so that older readers miss nothing else.
const Version = 2

// Kind says what an event did to a post or to an account.
type Kind string

// The kinds of events on the stream.
const (
	// KindCreate is a root post with tags that entered its repository.
	KindCreate Kind = "create"
	// KindUpdate replaces a post's record; the new one is a root post with tags.
	KindUpdate Kind = "update"
	// KindRemove is an update after which the post no longer qualifies: no
	// tags left, a reply now, or too big for a message. It takes the post out
	// of the index as KindDelete does.
	KindRemove Kind = "remove"
	// KindDelete is the deletion of a post, whether or not it ever qualified.
	KindDelete Kind = "delete"
	// KindAccount is a change of an account's hosting status.
	KindAccount Kind = "account"
	// KindSync says that an account's repository was replaced as a whole at
	// Rev; the posts it still holds follow as creates, and then its end (SyncState).
	KindSync Kind = "sync"
	// KindPosition carries nothing but how far the writer has read upstream.
	KindPosition Kind = "position"
	// KindAuthor says what an account's profile or handle became. Since version 2.
	KindAuthor Kind = "author"
)

// Kinds lists every kind, in the order of the constants.
var Kinds = []Kind{KindCreate, KindUpdate, KindRemove, KindDelete, KindAccount, KindSync, KindPosition, KindAuthor}

// Position is a place in one firehose host's history. Sequence numbers belong
// to one host: two positions compare only when their hosts are equal.
type Position struct {
	// Host is the base URL of the Jetstream host.
	Host string `json:"host"`
	// Seq is the host's sequence number of the event; the first is 1.
	Seq uint64 `json:"seq"`
	// Time is what the host shows as the time of the event (its time_us), in
	// UTC and whole microseconds. It is the host's stamp or, where the host's
	// operator imported one, any other: it is for display, and orders nothing.
	Time time.Time `json:"time"`
	// Clock is how far the network's own time had come when reading reached
	// this position: what came before it, give or take a minute, was read. It
	// comes from the revisions of what was read, which all hosts share, and does
	// not go back. Zero in messages of before there was one and, with a Mark, in what a
	// host downloaded when it was new, as long as nothing is covered.
	Clock time.Time `json:"clock,omitzero"`
	// Mark tells the event at Seq from any other that a host could give that
	// number to; "" where the event is not known.
	Mark string `json:"mark,omitempty"`
	// Sync is the #sync that is open at the position.
	Sync OpenSync `json:"sync,omitzero"`
	// Resync is set where replacements of a #sync may be missing: the time of the #sync, from
	// which another host has to be read.
	Resync time.Time `json:"resync,omitzero"`
}

// NetworkTime is the position's Clock or, where it has none, its Time.
func (p Position) NetworkTime() time.Time {
	if p.Clock.IsZero() {
		return p.Time
	}
	return p.Clock
}

// IsZero reports whether the position is the unset one.
func (p Position) IsZero() bool { return p == Position{} }

// Event is one message of the stream. Which fields are set follows from Kind:
//
//	create, update   DID Rkey Rev CID Tags Record, optionally Langs CreatedAt
//	remove, delete   DID Rkey Rev
//	account          DID Active, optionally Status Upstream
//	sync             DID Rev, and Sync but for old ones
//	position         only Source, and Sync but for old ones
//	author           DID, and Profile with Rev, or Handle, or both
type Event struct {
	// V is the version of the encoding, set by Encode and checked by Decode.
	V    int  `json:"v"`
	Kind Kind `json:"kind"`
	// Source is the upstream event that this one was made from. Without Resume
	// it is also the writer's checkpoint: a writer resumes behind the
	// Checkpoint of the stream's last message.
	Source Position `json:"source"`
	// Resume is set on events of a past window and of authors who were looked up, which
	// are published between the live ones: how far the live ones have come with it. It is then the
	// writer's checkpoint, and Source is not.
	Resume *Position `json:"resume,omitempty"`

	DID  string `json:"did,omitempty"`
	Rkey string `json:"rkey,omitempty"`
	// Rev is the repository revision (a TID) that made the change. TIDs sort
	// as bytes; the newest wins.
	Rev string `json:"rev,omitempty"`
	CID string `json:"cid,omitempty"`
	// Tags are normalized, distinct, in the order of their first appearance. An event
	// that was decoded has none where an older writer kept only what is no tag today.
	Tags []string `json:"tags,omitempty"`
	// Langs are the record's declared languages as written.
	Langs []string `json:"langs,omitempty"`
	// CreatedAt is the record's createdAt where that is a string, else empty.
	CreatedAt string `json:"createdAt,omitempty"`
	// Record is the record as received, as JSON.
	Record json.RawMessage `json:"record,omitempty"`

	// Active and Status are the account's, as the upstream event gave them.
	Active bool   `json:"active,omitempty"`
	Status string `json:"status,omitempty"`
	// Upstream orders the account's statuses (StatusOrder). It is not set where
	// upstream gave no time that can be used, nor in old messages.
	Upstream *Upstream `json:"upstream,omitempty"`

	// Sync is what a sync or a position says of a #sync, "" in old messages.
	Sync SyncState `json:"sync,omitempty"`

	// Profile is the author's as of Rev, and Handle as of the handle's time.
	Profile *Profile `json:"profile,omitempty"`
	Handle  *Handle  `json:"handle,omitempty"`

	// Traceparent is the trace (W3C Trace Context) that the event is part of, ""
	// for nearly all. It is not in the encoding but in a header beside it, and
	// means nothing to the index.
	Traceparent string `json:"-"`
}

// version is the lowest version that knows the event's kind.
func (e *Event) version() int {
	if e.Kind == KindAuthor {
		return 2
	}
	return 1
}

// LookedUp reports whether an author event came from an answer of Source.Host to the writer's own
// question at Source.Time, and not from the firehose, whose sequence numbers begin with 1.
func (e *Event) LookedUp() bool {
	return e.Kind == KindAuthor && e.Source.Host != "" && e.Source.Seq == 0
}

// Checkpoint is how far upstream a stream that ends with the event was read: a
// writer resumes behind it.
func (e *Event) Checkpoint() Position {
	if e.Resume != nil {
		return *e.Resume
	}
	return e.Source
}

// URI is the at-uri of the post that the event is about.
func (e *Event) URI() string { return URI(e.DID, e.Rkey) }

// IsPost reports whether the event is about one post.
func (e *Event) IsPost() bool {
	switch e.Kind {
	case KindCreate, KindUpdate, KindRemove, KindDelete:
		return true
	}
	return false
}

// Collection is the only collection that Tagstream reads.
const Collection = "app.bsky.feed.post"

// URI is the at-uri of the post with record key rkey in the repository of did.
func URI(did, rkey string) string {
	return "at://" + did + "/" + Collection + "/" + rkey
}
