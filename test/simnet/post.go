package simnet

import "time"

// recordTime is the format in which clients write createdAt.
const recordTime = "2006-01-02T15:04:05.000Z"

// NewPost returns a root post's record: the text, then each tag as "#tag" with its facet. Tags are
// written unchanged.
func NewPost(at time.Time, text string, tags ...string) map[string]any {
	record := map[string]any{"$type": PostCollection, "createdAt": at.UTC().Format(recordTime), "langs": []any{"en"}}
	var facets []any
	for _, tag := range tags {
		if text != "" {
			text += " "
		}
		start := len(text)
		text += "#" + tag
		facets = append(facets, facet(start, len(text), tagFeature(tag)))
	}
	record["text"] = text
	if facets != nil {
		record["facets"] = facets
	}
	return record
}

// NewProfile returns a profile's record. A profile that is not public asks to be hidden from
// logged-out readers.
func NewProfile(displayName string, public bool) map[string]any {
	record := map[string]any{"$type": ProfileCollection, "displayName": displayName, "description": "Just trying things out."}
	if !public {
		record["labels"] = map[string]any{"$type": "com.atproto.label.defs#selfLabels",
			"values": []any{map[string]any{"val": "!no-unauthenticated"}}}
	}
	return record
}

// facet marks the bytes from start to end, exclusive, of a text.
func facet(start, end int, features ...any) map[string]any {
	return map[string]any{"$type": "app.bsky.richtext.facet", "index": map[string]any{"byteStart": start, "byteEnd": end}, "features": features}
}

// tagFeature returns the feature of a hashtag; the tag has no leading "#".
func tagFeature(tag string) map[string]any {
	return map[string]any{"$type": "app.bsky.richtext.facet#tag", "tag": tag}
}

// strongRef refers to one version of a record.
func strongRef(uri, cid string) map[string]any { return map[string]any{"uri": uri, "cid": cid} }

// reply makes a record a reply.
func reply(record map[string]any, root, parent livePost) {
	record["reply"] = map[string]any{"root": strongRef(root.uri, root.cid), "parent": strongRef(parent.uri, parent.cid)}
}

// quote embeds a record; the post stays a root post.
func quote(record map[string]any, target livePost) {
	record["embed"] = map[string]any{"$type": "app.bsky.embed.record", "record": strongRef(target.uri, target.cid)}
}
