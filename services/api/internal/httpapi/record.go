package httpapi

import (
	"bytes"
	"encoding/json"
)

var (
	null = []byte("null")
	// usualStart is how records begin that ingest stored, whose names are sorted, and differ.
	usualStart          = []byte(`{"$type":"app.bsky.feed.post","createdAt":`)
	createdName, escape = []byte(`"createdAt"`), []byte(`\u`)
)

// createdAt returns the record's own createdAt as it is written in the JSON,
// quotes included, or null where there is none or it is not a string. It finds
// the value without decoding the record: every row of every page passes here.
// (encoding/json into a struct would also take "createdat".) Of several equal
// names the last counts, as in a map. A record that is not a JSON object has
// none.
func createdAt(record []byte) json.RawMessage {
	if rest, ok := bytes.CutPrefix(record, usualStart); ok && bytes.HasPrefix(rest, []byte{'"'}) && !bytes.Contains(rest, createdName) && !bytes.Contains(rest, escape) {
		if end := stringEnd(rest, 0); end > 0 {
			return rest[:end]
		}
	}
	found := null
	depth, name := 0, []byte(nil)
	// expectName says that at depth 1 a string would be a name, not a value.
	expectName := false
	for i := 0; i < len(record); i++ {
		switch c := record[i]; c {
		case '{', '[':
			if depth == 0 && c == '[' {
				return null
			}
			if depth == 1 && isCreatedAt(name) {
				found = null
			}
			depth++
			expectName = depth == 1
		case '}', ']':
			depth--
		case ',':
			expectName = depth == 1
		case ':', ' ', '\t', '\n', '\r':
		case '"':
			end := stringEnd(record, i)
			if end < 0 || depth == 0 {
				return null
			}
			if depth == 1 {
				switch text := record[i:end]; {
				case expectName:
					name, expectName = text, false
				case isCreatedAt(name):
					found = text
				}
			}
			i = end - 1
		default: // a number, true, false or null
			if depth == 1 && isCreatedAt(name) {
				found = null
			}
		}
	}
	return found
}

// stringEnd returns the index behind the JSON string that begins at i, or -1.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// isCreatedAt reports whether a JSON string, quotes included, says createdAt.
func isCreatedAt(name []byte) bool {
	if !bytes.ContainsRune(name, '\\') {
		return string(name) == `"createdAt"`
	}
	var s string
	return json.Unmarshal(name, &s) == nil && s == "createdAt"
}
