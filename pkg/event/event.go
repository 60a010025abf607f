package event

import (
	"encoding/json"
	"time"
)

// Version is the newest version that [Event.Encode] writes. Each message has the lowest version
// that knows its kind, so that older readers can read all other kinds.
const Version = 2

// Kind says what happened to a post or an account.
type Kind string

// The kinds of events on the stream.
const (
	// KindCreate is a root post with tags that entered its repository.
	KindCreate Kind = "create"
	// KindUpdate replaces a post's record; the new one is a root post with tags.
	KindUpdate Kind = "update"
	// KindRemove is an update after which the post no longer qualifies: it has no tags, became a
	// reply, or is too big for a message. It takes the post out of the index as KindDelete does.
	KindRemove Kind = "remove"
	// KindDelete is the deletion of a post, whether or not it ever qualified.
	KindDelete Kind = "delete"
	// KindAccount is a change of an account's hosting status.
	KindAccount Kind = "account"
	// KindSync says that an account's repository was replaced as a whole at Rev. The posts it still
	// holds follow as creates, then the end of the #sync (SyncState).
	KindSync Kind = "sync"
	// KindPosition only says how far the writer has read upstream.
	KindPosition Kind = "position"
	// KindAuthor is a change of an account's profile or handle. Since version 2.
	KindAuthor Kind = "author"
)

// Kinds lists every kind, in the order of the constants.
var Kinds = []Kind{KindCreate, KindUpdate, KindRemove, KindDelete, KindAccount, KindSync, KindPosition, KindAuthor}

// Position is a place in one firehose host's history. Sequence numbers belong to one host: two
// positions are comparable only if their hosts are equal.
type Position struct {
	// Host is the base URL of the Jetstream host.
	Host string `json:"host"`
	// Seq is the host's sequence number of the event; the first is 1.
	Seq uint64 `json:"seq"`
	// Time is the time that the host shows for the event (its time_us), in UTC and whole
	// microseconds. It is the host's stamp, or whatever time the host's operator imported: it is
	// for display and orders nothing.
	Time time.Time `json:"time"`
	// Clock is the network time that reading had reached at this position: earlier events, give or
	// take a minute, have been read. It is derived from the revisions that were read, which all
	// hosts share, and never goes back. It is zero in messages of older programs, and also (with a
	// Mark) in events that a new host downloaded, if those are read first.
	Clock time.Time `json:"clock,omitzero"`
	// Mark distinguishes the event at Seq from any other event that a host could give that number
	// to. It is "" if the event is not known.
	Mark string `json:"mark,omitempty"`
	// Sync is the #sync that is open at this position.
	Sync OpenSync `json:"sync,omitzero"`
	// Resync is set if replacements of a #sync may be missing. It is the time of the #sync, from
	// which another host must be read.
	Resync time.Time `json:"resync,omitzero"`
}

// NetworkTime returns the position's Clock or, if that is zero, its Time.
func (p Position) NetworkTime() time.Time {
	if p.Clock.IsZero() {
		return p.Time
	}
	return p.Clock
}

// IsZero reports whether the position is unset.
func (p Position) IsZero() bool { return p == Position{} }

// Event is one message of the stream. Kind decides which fields are set:
//
//	create, update   DID Rkey Rev CID Tags Record, optionally Langs CreatedAt
//	remove, delete   DID Rkey Rev
//	account          DID Active, optionally Status Upstream
//	sync             DID Rev, and Sync except in old messages
//	position         only Source, and Sync except in old messages
//	author           DID, and Profile with Rev, or Handle, or both
type Event struct {
	// V is the version of the encoding, set by Encode and checked by Decode.
	V    int  `json:"v"`
	Kind Kind `json:"kind"`
	// Source is the upstream event that this event was made from. If Resume is not set, Source is
	// also how far upstream was read: see ResumeAt.
	Source Position `json:"source"`
	// Resume is set on events of side work (jobs and author look-ups), which are published between
	// live events. It says how far live reading had come.
	Resume *Position `json:"resume,omitempty"`

	DID  string `json:"did,omitempty"`
	Rkey string `json:"rkey,omitempty"`
	// Rev is the repository revision (a TID) that made the change. TIDs sort as bytes; the newest
	// wins.
	Rev string `json:"rev,omitempty"`
	CID string `json:"cid,omitempty"`
	// Tags are normalized and distinct, in the order of their first appearance. A decoded event has
	// none if none of the tags that an older writer stored is a tag today.
	Tags []string `json:"tags,omitempty"`
	// Langs are the record's declared languages as written.
	Langs []string `json:"langs,omitempty"`
	// CreatedAt is the record's createdAt if that is a string, else "".
	CreatedAt string `json:"createdAt,omitempty"`
	// Record is the record as received, as JSON.
	Record json.RawMessage `json:"record,omitempty"`
	// Compact says that Record is valid JSON without white space, so that Encode need not check it.
	// Reset it when Record changes.
	Compact bool `json:"-"`

	// Active and Status are those of the account, as in the upstream event.
	Active bool   `json:"active,omitempty"`
	Status string `json:"status,omitempty"`
	// Upstream orders the account's statuses (StatusOrder). It is not set in old messages, or if
	// upstream gave no usable time.
	Upstream *Upstream `json:"upstream,omitempty"`

	// Sync is what a sync or a position says about a #sync, "" in old messages.
	Sync SyncState `json:"sync,omitempty"`

	// Profile is the author's profile as of Rev; Handle is the handle as of Handle.Time.
	Profile *Profile `json:"profile,omitempty"`
	Handle  *Handle  `json:"handle,omitempty"`

	// Traceparent is the trace (W3C Trace Context) that the event belongs to, "" for nearly all
	// events. It travels in a message header, not in the encoding, and has no effect on the index.
	Traceparent string `json:"-"`
}

// version returns the lowest version that knows the event's kind.
func (e *Event) version() int {
	if e.Kind == KindAuthor {
		return 2
	}
	return 1
}

// LookedUp reports whether an author event comes from a request of the writer to Source.Host at
// Source.Time and not from the firehose, whose sequence numbers start at 1.
func (e *Event) LookedUp() bool {
	return e.Kind == KindAuthor && e.Source.Host != "" && e.Source.Seq == 0
}

// ResumeAt returns how far upstream was read if this event is the stream's last: a writer resumes
// after this position.
func (e *Event) ResumeAt() Position {
	if e.Resume != nil {
		return *e.Resume
	}
	return e.Source
}

// URI returns the at-uri of the event's post.
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

// URI returns the at-uri of the post with record key rkey in the repository of did.
func URI(did, rkey string) string {
	return "at://" + did + "/" + Collection + "/" + rkey
}
