package decode

// DropReason says why an upstream event is not published. The set is closed, so that every metric
// series exists at zero.
type DropReason string

// The reasons.
const (
	// Kept is the absence of a reason: the event goes to the stream.
	Kept DropReason = ""
	// Reply is a create of a post that answers another. NoTags is a create of a root post without a
	// valid tag. Both take precedence over other defects.
	Reply  DropReason = "reply"
	NoTags DropReason = "no_tags"
	// BadRecord is a create whose record is not an object of the atproto data model.
	BadRecord DropReason = "bad_record"
	// TooBig is a create over the server's payload limit.
	TooBig DropReason = "too_big"
	// NoHandle is an identity event without a handle.
	NoHandle DropReason = "no_handle"
	// OtherKind is an event of a kind that Tagstream does not follow, such as one that a newer host
	// may send.
	OtherKind DropReason = "other_kind"
	// OtherCollection is a commit of another record type.
	OtherCollection DropReason = "other_collection"
	// BadOperation is a commit that is not a create, update or delete.
	BadOperation DropReason = "bad_operation"
	// BadDID, BadRkey and BadRev are identifiers with invalid syntax.
	BadDID  DropReason = "bad_did"
	BadRkey DropReason = "bad_rkey"
	BadRev  DropReason = "bad_rev"
	// BadPosition is an event without a usable sequence number or time.
	BadPosition DropReason = "bad_position"
)

// DropReasons lists every reason but Kept.
var DropReasons = []DropReason{
	Reply, NoTags, BadRecord, TooBig, NoHandle, OtherKind, OtherCollection,
	BadOperation, BadDID, BadRkey, BadRev, BadPosition,
}
