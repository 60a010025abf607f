package decode

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/jcalabro/atmos/cbor"
)

// tagFeature is the $type of a facet feature that is a tag.
const tagFeature = "app.bsky.richtext.facet#tag"

// cborNull is CBOR's null.
const cborNull = 0xf6

// glance returns the reason why a post does not qualify if its field names alone show that, as for
// nine out of ten posts; only the others are decoded. It does not look for other defects of a
// record that is a reply or has no tags.
func glance(raw []byte) DropReason {
	fields, pos, err := cbor.ReadMapHeader(raw, 0)
	if err != nil {
		return Kept // decoding it says what it is
	}
	reply, tags := false, false
	for range fields {
		from, to, value, err := cbor.ReadTextKey(raw, pos)
		if err != nil {
			return Kept
		}
		if pos, err = cbor.SkipValue(raw, value); err != nil {
			return Kept
		}
		switch string(raw[from:to]) {
		case "reply":
			reply = raw[value] != cborNull
		case "tags":
			tags = true
		case "facets":
			tags = tags || bytes.Contains(raw[value:pos], []byte(tagFeature))
		}
	}
	switch {
	case pos != len(raw):
		return Kept
	case reply:
		return Reply
	case !tags:
		return NoTags
	}
	return Kept
}

// rawTags returns a record's tags as written: those of its facets in order, then those of its tags
// field. malformed counts tags that are not text.
func rawTags(record map[string]any) (tags []string, malformed int) {
	add := func(v any) {
		if s, ok := v.(string); ok {
			tags = append(tags, s)
		} else {
			malformed++
		}
	}
	for _, facet := range list(record["facets"]) {
		f, ok := facet.(map[string]any)
		if !ok {
			continue
		}
		for _, feature := range list(f["features"]) {
			if g, ok := feature.(map[string]any); ok && g["$type"] == tagFeature {
				add(g["tag"])
			}
		}
	}
	for _, tag := range list(record["tags"]) {
		add(tag)
	}
	return tags, malformed
}

// list returns v's elements. A field that should be a list and is not costs only that field.
func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func texts(v any) []string {
	var out []string
	for _, item := range list(v) {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// recordJSON returns a record as atproto JSON: integers in full (a float64 would lose those beyond
// 2^53), bytes as $bytes, links as $link. Keys are sorted, so equal records give equal JSON. size
// is a hint for the length.
func recordJSON(record map[string]any, size int) (json.RawMessage, error) {
	return appendJSON(make([]byte, 0, size+size/4), record)
}

func appendJSON(dst []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return cbor.AppendJSONNull(dst), nil
	case bool:
		return cbor.AppendJSONBool(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case float64:
		// Not part of the data model, but occurs in some archives.
		f, err := json.Marshal(v)
		return append(dst, f...), err
	case string:
		return cbor.AppendJSONString(dst, v), nil
	case []byte:
		dst = append(dst, `{"$bytes":"`...)
		dst = base64.RawStdEncoding.AppendEncode(dst, v)
		return append(dst, `"}`...), nil
	case cbor.CID:
		dst = append(dst, `{"$link":"`...)
		return append(append(dst, v.String()...), `"}`...), nil
	case []any:
		dst = append(dst, '[')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendJSON(dst, item); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case map[string]any:
		keys := make([]string, 0, 16) // on the stack, for nearly all
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		dst = append(dst, '{')
		for i, k := range keys {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(cbor.AppendJSONString(dst, k), ':')
			var err error
			if dst, err = appendJSON(dst, v[k]); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	}
	return nil, fmt.Errorf("no JSON for a %T", value)
}
