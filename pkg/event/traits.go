package event

import (
	"bytes"
	"encoding/json"
)

// Traits are the properties of a record that filters test, as bits. They are stored, so a bit never
// changes its meaning.
type Traits int16

// The traits of a post: what is attached, and whether its author labelled it.
const (
	HasImage     Traits = 1 << iota // app.bsky.embed.images
	HasVideo                        // app.bsky.embed.video
	HasGallery                      // app.bsky.embed.gallery
	HasLink                         // app.bsky.embed.external
	SelfLabelled                    // com.atproto.label.defs#selfLabels with a value

	// HasMedia is every kind of attachment.
	HasMedia = HasImage | HasVideo | HasGallery | HasLink
)

var embedKinds = map[string]Traits{
	"app.bsky.embed.images":   HasImage,
	"app.bsky.embed.video":    HasVideo,
	"app.bsky.embed.gallery":  HasGallery,
	"app.bsky.embed.external": HasLink,
}

// TraitsOf returns the traits of a JSON record. Parts that do not match the lexicon have no traits.
func TraitsOf(record []byte) Traits {
	t, _, labels := Media(record)
	if len(labels) > 0 {
		t |= SelfLabelled
	}
	return t
}

// Media returns the kind of a JSON record's attachment, one of HasMedia, and its embed, which may
// be inside a recordWithMedia; or 0 and nil. labels are those that the author gave the record.
//
// It reads only the fields that it needs: decoding whole records would cost the indexer several
// times as much.
func Media(record []byte) (kind Traits, embed []byte, labels []string) {
	fields(record, func(name string, value []byte) {
		switch name {
		case "embed":
			kind, embed = mediaOf(value, true)
		case "labels":
			labels = selfLabels(value)
		}
	})
	return kind, embed, labels
}

// mediaOf returns the kind and the JSON of an embed or, if outer, of the media in it.
func mediaOf(embed []byte, outer bool) (Traits, []byte) {
	var kind string
	var media []byte
	fields(embed, func(name string, value []byte) {
		switch name {
		case "$type":
			kind = text(value)
		case "media":
			media = value
		}
	})
	if outer && kind == "app.bsky.embed.recordWithMedia" { // an embed next to a quoted post
		return mediaOf(media, false)
	}
	if embedKinds[kind] == 0 {
		return 0, nil
	}
	return embedKinds[kind], embed
}

// selfLabels returns the values of com.atproto.label.defs#selfLabels, except for empty ones.
func selfLabels(labels []byte) (values []string) {
	fields(labels, func(name string, list []byte) {
		if name != "values" {
			return
		}
		values = nil
		elements(list, func(label []byte) {
			val := ""
			fields(label, func(name string, value []byte) {
				if name == "val" {
					val = text(value)
				}
			})
			if val != "" {
				values = append(values, val)
			}
		})
	})
	return values
}

// fields calls fn with the fields of a JSON object, in order. Other values have no fields. If the
// text is not valid JSON, the calls are arbitrary.
func fields(object []byte, fn func(name string, value []byte)) {
	b := trimSpace(object)
	if len(b) == 0 || b[0] != '{' {
		return
	}
	for b = b[1:]; ; b = b[1:] {
		b = trimSpace(b)
		n := valueEnd(b)
		if n == 0 || b[0] != '"' {
			return
		}
		name := b[:n]
		b = trimSpace(b[n:])
		if len(b) == 0 || b[0] != ':' {
			return
		}
		b = trimSpace(b[1:])
		if n = valueEnd(b); n == 0 {
			return
		}
		fn(text(name), b[:n])
		if b = trimSpace(b[n:]); len(b) == 0 || b[0] != ',' {
			return
		}
	}
}

// elements calls fn with the elements of a JSON array, like fields.
func elements(array []byte, fn func(value []byte)) {
	b := trimSpace(array)
	if len(b) == 0 || b[0] != '[' {
		return
	}
	for b = b[1:]; ; b = b[1:] {
		b = trimSpace(b)
		n := valueEnd(b)
		if n == 0 {
			return
		}
		fn(b[:n])
		if b = trimSpace(b[n:]); len(b) == 0 || b[0] != ',' {
			return
		}
	}
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// valueEnd returns the end of the JSON value at the start of b, or 0 if there is none.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := stringEnd(b[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	if depth == 0 {
		return len(b)
	}
	return 0
}

// stringEnd returns the end of the string at the start of b, or 0 if it has none.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return 0
		}
		i += n
		escapes := 0
		for b[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
	return 0
}

// text returns the string in a JSON value, or "" if it is not a string.
func text(value []byte) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	if in := value[1 : len(value)-1]; bytes.IndexByte(in, '\\') < 0 {
		return string(in)
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}
