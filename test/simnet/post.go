package simnet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

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

// Malformation is a way in which a post's record breaks its lexicon. All of them occur on the real network.
type Malformation string

// The malformations. Apart from its fault, each record is a root post with the valid tag "art", in
// the facet of "#art" at the end of its text or, if its facets are malformed, in the record's tags.
const (
	TagsNotStrings    Malformation = "tags-not-strings"    // tags: ["good", 7, null, {"a":1}, "art"]
	TagsIsString      Malformation = "tags-is-string"      // tags: "art"
	NumericCreatedAt  Malformation = "numeric-created-at"  // createdAt: 1700000000
	MissingCreatedAt  Malformation = "missing-created-at"  //
	EmptyCreatedAt    Malformation = "empty-created-at"    // createdAt: ""
	ZonelessCreatedAt Malformation = "zoneless-created-at" // createdAt: "2026-01-02T03:04:05"
	AncientCreatedAt  Malformation = "ancient-created-at"  // createdAt: "0001-01-01T00:00:00Z"
	FutureCreatedAt   Malformation = "future-created-at"   // ten years ahead
	NumericText       Malformation = "numeric-text"        // text: 42, with tags
	NULInText         Malformation = "nul-in-text"         //
	NULInTag          Malformation = "nul-in-tag"          // one tag with a NUL next to the valid one
	LongTag           Malformation = "long-tag"            // one tag of 4 KB next to the valid one
	ManyTags          Malformation = "many-tags"           // 150 tags and then the valid one, all in tags
	LongText          Malformation = "long-text"           // 90 KB
	ObjectFacets      Malformation = "object-facets"       // facets: {}
	BrokenFacets      Malformation = "broken-facets"       // facets that are null, a number, without index, without features
	FacetOutOfRange   Malformation = "facet-out-of-range"  // an index beyond the text
	OddRecordKey      Malformation = "odd-record-key"      // a record key that is not a TID
	MissingType       Malformation = "missing-type"        // no $type
)

// Malformations returns all of them.
func Malformations() []Malformation {
	return []Malformation{TagsNotStrings, TagsIsString, NumericCreatedAt, MissingCreatedAt, EmptyCreatedAt, ZonelessCreatedAt, AncientCreatedAt,
		FutureCreatedAt, NumericText, NULInText, NULInTag, LongTag, ManyTags, LongText, ObjectFacets, BrokenFacets, FacetOutOfRange, OddRecordKey, MissingType}
}

// CreateMalformed writes a post with the given fault and emits it.
func (n *Network) CreateMalformed(did string, kind Malformation) (Post, error) {
	if !slices.Contains(Malformations(), kind) {
		return Post{}, fmt.Errorf("create malformed post: no malformation %q", kind)
	}
	rkey := ""
	if kind == OddRecordKey {
		n.mu.Lock()
		rkey = "self-portrait_" + n.nextTID() // unique, but not a TID
		n.mu.Unlock()
	}
	return n.CreatePost(did, rkey, malformedRecord(kind, n.Now()))
}

// malformedRecord returns the record.
func malformedRecord(kind Malformation, now time.Time) map[string]any {
	text := "something is wrong here"
	switch kind {
	case NULInText:
		text = "before\x00after"
	case LongText:
		text = strings.Repeat("long text ", 9_000)
	}
	record := NewPost(now, text, "art")
	switch kind {
	case TagsNotStrings:
		record["tags"] = []any{"good", 7, nil, map[string]any{"a": 1}, "art"}
	case TagsIsString:
		record["tags"] = "art"
	case NumericCreatedAt:
		record["createdAt"] = 1_700_000_000
	case MissingCreatedAt:
		delete(record, "createdAt")
	case EmptyCreatedAt:
		record["createdAt"] = ""
	case ZonelessCreatedAt:
		record["createdAt"] = "2026-01-02T03:04:05"
	case AncientCreatedAt:
		record["createdAt"] = "0001-01-01T00:00:00Z"
	case FutureCreatedAt:
		record["createdAt"] = now.AddDate(10, 0, 0).Format(recordTime)
	case NumericText:
		record["text"], record["tags"] = 42, []any{"art"}
	case NULInTag:
		record["tags"] = []any{"nul\x00tag", "art"}
	case LongTag:
		record["tags"] = []any{strings.Repeat("x", 4096), "art"}
	case ManyTags:
		delete(record, "facets")
		tags := make([]any, 0, 151)
		for i := range 150 {
			tags = append(tags, fmt.Sprintf("many%d", i))
		}
		record["tags"] = append(tags, "art")
	case ObjectFacets:
		record["facets"], record["tags"] = map[string]any{}, []any{"art"}
	case BrokenFacets:
		record["facets"] = append([]any{nil, 3, map[string]any{"features": []any{tagFeature("noindex")}},
			map[string]any{"index": map[string]any{"byteStart": 0, "byteEnd": 4}}}, record["facets"].([]any)...)
	case FacetOutOfRange:
		record["facets"].([]any)[0].(map[string]any)["index"] = map[string]any{"byteStart": 5_000, "byteEnd": 5_004}
	case MissingType:
		delete(record, "$type")
	}
	return record
}
