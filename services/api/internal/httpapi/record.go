package httpapi

import (
	"bytes"
	"encoding/json"
)

var (
	null = []byte("null")
	// usualStart is how records from ingest begin: their names are sorted and unique.
	usualStart          = []byte(`{"$type":"app.bsky.feed.post","createdAt":`)
	createdName, escape = []byte(`"createdAt"`), []byte(`\u`)
)

// createdAt returns the record's createdAt as written in the JSON, with quotes, or null if there is
// none or it is not a string. It finds the value without decoding the record, since it runs for
// every row of every page. (Decoding into a struct would also accept "createdat".) If the name is
// repeated, the last one counts, as in a map. A record that is not a JSON object has none.
func createdAt(record []byte) json.RawMessage {
	if rest, ok := bytes.CutPrefix(record, usualStart); ok && bytes.HasPrefix(rest, []byte{'"'}) && !bytes.Contains(rest, createdName) && !bytes.Contains(rest, escape) {
		if end := stringEnd(rest, 0); end > 0 {
			return rest[:end]
		}
	}
	found := null
	depth, name := 0, []byte(nil)
	// expectName means that a string at depth 1 is a name, not a value.
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

// stringEnd returns the index after the JSON string that begins at i, or -1.
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

// isCreatedAt reports whether a JSON string, with quotes, is createdAt.
func isCreatedAt(name []byte) bool {
	if !bytes.ContainsRune(name, '\\') {
		return string(name) == `"createdAt"`
	}
	var s string
	return json.Unmarshal(name, &s) == nil && s == "createdAt"
}
