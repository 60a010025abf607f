package httpapi

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/tagstream/tagstream/pkg/keyset"
)

const contentJSON = "application/json"

// response is an answer that is complete before its first byte is sent, so that any failure can
// still become a 500.
type response struct {
	contentType string
	body        []byte
	links       []string
	// cache is the Cache-Control; "" means no-cache.
	cache string
	// follower, if not nil, is served instead of a body.
	follower *follower
	// pooled means that body returns to bodies after it is sent.
	pooled bool
	// status is the HTTP status; 0 means 200.
	status int
	// header has further headers.
	header map[string]string
}

// jsonResponse returns v as an answer.
func jsonResponse(v any) (*response, error) {
	r := &response{}
	return r, r.setJSON(v)
}

// setJSON makes v the body.
func (r *response) setJSON(v any) error {
	body, err := encode(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	r.contentType, r.body = contentJSON, body
	return nil
}

// setPosts makes an object with the posts and the fields of end the body. Most of what this process
// writes is records, which are known to be valid JSON: encoding/json would check and copy them
// again.
func (r *response) setPosts(posts iter.Seq[postJSON], end any) error {
	tail, err := encode(end)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	b := append((*bodies.Get().(*[]byte))[:0], `{"posts":[`...)
	first := true
	for p := range posts {
		if !first {
			b = append(b, ',')
		}
		b, first = p.appendJSON(b), false
	}
	b = append(b, ']')
	if tail = tail[1:]; tail[0] != '}' {
		b = append(b, ',')
	}
	r.contentType, r.body, r.pooled = contentJSON, append(b, tail...), true
	return nil
}

// bodies are buffers for pages, with the size that most of them need.
var bodies = sync.Pool{New: func() any { b := make([]byte, 0, pageRoom); return &b }}

const pageRoom, maxPageRoom = 64 << 10, 256 << 10

// free returns the body's buffer. Nothing may read the body afterwards.
func (r *response) free() {
	if b := r.body; r.pooled && cap(b) <= maxPageRoom {
		bodies.Put(&b)
	}
	r.body, r.pooled = nil, false
}

// appendJSON appends the post as encode would write it, with the record as stored.
func (p *postJSON) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"uri":`...), p.URI)
	b = appendString(append(b, `,"cid":`...), p.CID)
	b = appendString(append(b, `,"did":`...), p.DID)
	b = appendString(append(b, `,"rkey":`...), p.Rkey)
	b = appendString(append(b, `,"author":{"did":`...), p.Author.DID)
	b = appendTextOrNull(append(b, `,"handle":`...), p.Author.Handle)
	b = appendTextOrNull(append(b, `,"displayName":`...), p.Author.DisplayName)
	b = append(appendTextOrNull(append(b, `,"avatar":`...), p.Author.Avatar), '}')
	b = appendStrings(append(b, `,"tags":`...), p.Tags)
	b = appendStrings(append(b, `,"langs":`...), p.Langs)
	b = append(append(b, `,"createdAt":`...), p.CreatedAt...)
	b = p.IndexedAt.appendJSON(append(b, `,"indexedAt":`...))
	b = p.SortAt.appendJSON(append(b, `,"sortAt":`...))
	b = append(append(b, `,"record":`...), p.Record...)
	b = appendString(append(b, `,"cursor":`...), p.Cursor)
	return append(b, '}')
}

func appendStrings(b []byte, all []string) []byte {
	b = append(b, '[')
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

func appendTextOrNull(b []byte, s *string) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return appendString(b, *s)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := encode(s) // no string fails
			return append(b, quoted[:len(quoted)-1]...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// encode returns v as JSON and a line break. It does not escape &, < and >, so that records stay as
// received and sentences are readable.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// link adds a link to another page of the same list. It is only a query, so that it stays on the
// requested path even if a proxy rewrites paths.
func (r *response) link(rawQuery, rel string) {
	if len(rawQuery) > maxRawQuery {
		return // the link would be refused; the tokens are in the body
	}
	r.links = append(r.links, "<?"+rawQuery+`>; rel="`+rel+`"`)
}

// replace returns the raw query without the dropped parameters and with others at its end. The rest
// stays in order, renamed as given.
func (q values) replace(drop []string, rename map[string]string, with ...pair) string {
	var b strings.Builder
	for i, p := range slices.Concat(q, with) {
		if i < len(q) && slices.Contains(drop, p.name) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		name := p.name
		if other, ok := rename[name]; ok {
			name = other
		}
		b.WriteString(url.QueryEscape(name) + "=" + url.QueryEscape(p.value))
	}
	return b.String()
}

// write sends the answer, or 304 if the client has it. The ETag is strong: a hash of the body, with
// a suffix if the body is compressed. Compression always gives the same bytes.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, res *response) {
	gzipped := acceptsGzip(r.Header.Values("Accept-Encoding"))
	etag := h.etags.of(res.body)
	if gzipped {
		etag += "-gzip"
	}
	etag = `"` + etag + `"`

	head := w.Header()
	if res.status == http.StatusSeeOther {
		res.setHeaders(head, etag)
		w.WriteHeader(res.status)
		return
	}
	if matches(r.Header.Values("If-None-Match"), etag) {
		res.setHeaders(head, etag)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := res.body
	if gzipped {
		body = h.compress(body)
		res.free() // a slow client then holds only the compressed body
	}
	size := int64(len(body))
	if !h.sending.take(size) {
		writeProblem(w, errOverloaded)
		return
	}
	defer h.sending.giveBack(size)
	res.setHeaders(head, etag)
	if gzipped {
		head.Set("Content-Encoding", "gzip")
	}
	head.Set("Content-Type", res.contentType)
	head.Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(cmp.Or(res.status, http.StatusOK))
	// After an error, which has nowhere to be reported, HTTP/2 may still read the body.
	if _, err := w.Write(body); err == nil {
		res.free()
	}
}

// etags computes entity tags: a hash of a secret and a GMAC of the body, which takes a tenth of the
// time of hashing the body. The secret keeps public bodies and tags from revealing the GMAC's key,
// so that no author can write a post that leaves a page's tag unchanged.
type etags struct {
	mac    cipher.AEAD
	secret []byte
}

// newETags returns etags that are the same in every process with the same key.
func newETags(codec *keyset.Codec) *etags {
	block, err := aes.NewCipher(codec.Derive("ETag's GMAC"))
	if err != nil {
		panic(err) // the key is not 32 bytes
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES does not have blocks of 16 bytes
	}
	return &etags{mac, codec.Derive("ETag")}
}

// of returns the tag of a body, without quotes.
func (e *etags) of(body []byte) string {
	var nonce [12]byte
	sum := sha256.Sum256(e.mac.Seal(bytes.Clone(e.secret), nonce[:], nil, body))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// setHeaders sets the headers that 200 and 304 have in common.
func (r *response) setHeaders(head http.Header, etag string) {
	for name, value := range r.header {
		head.Set(name, value)
	}
	head.Set("ETag", etag)
	head.Set("Cache-Control", cmp.Or(r.cache, "no-cache"))
	if len(r.links) > 0 {
		head.Set("Link", strings.Join(r.links, ", "))
	}
}

func (h *Handler) compress(body []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(body)/3 + 64)
	z := h.gzips.Get().(*gzip.Writer)
	defer h.gzips.Put(z)
	z.Reset(&b)
	// Writing to a buffer does not fail.
	_, _ = z.Write(body)
	_ = z.Close()
	return b.Bytes()
}

// acceptsGzip reports whether a client accepts gzip and does not prefer the uncompressed body
// (RFC 9110, section 12.5.3).
func acceptsGzip(values []string) bool {
	gzipQ, starQ, identityQ := -1.0, -1.0, -1.0
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		coding, params, _ := strings.Cut(item, ";")
		q := 1.0
		for param := range strings.SplitSeq(params, ";") {
			name, value, _ := strings.Cut(param, "=")
			if strings.EqualFold(strings.TrimSpace(name), "q") {
				var err error
				if q, err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil || !(q >= 0 && q <= 1) {
					q = 0 // invalid: the uncompressed body is always acceptable
				}
			}
		}
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			gzipQ = max(gzipQ, q)
		case "*":
			starQ = q
		case "identity":
			identityQ = q
		}
	}
	if gzipQ < 0 {
		gzipQ = starQ
	}
	return gzipQ > 0 && gzipQ >= identityQ
}

// matches reports whether an If-None-Match header names the ETag, by weak comparison as RFC 9110
// (section 13.1.2) requires.
func matches(values []string, etag string) bool {
	rest := strings.Join(values, ",")
	if strings.TrimSpace(rest) == "*" {
		return true
	}
	for {
		rest = strings.TrimLeft(rest, " \t,")
		rest = strings.TrimPrefix(rest, "W/")
		if !strings.HasPrefix(rest, `"`) {
			return false
		}
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			return false
		}
		if rest[:end+2] == etag {
			return true
		}
		rest = rest[end+2:]
	}
}
