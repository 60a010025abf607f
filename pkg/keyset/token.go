package keyset

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
)

// MaxToken is the length limit of a token, in characters; longer ones are refused unread. It leaves
// about 3,000 bytes for a key's values, more than a row of a Postgres index can have (2,704 bytes).
const MaxToken = 4096

// ErrBadToken means that a token was not made by these keys: it is malformed, truncated, changed,
// forged, too long, or of an unknown version or key. Tell the client to start again without it.
var ErrBadToken = errors.New("bad page token")

// ErrTokenMismatch means that a token is genuine but was made for another ordering or other
// filters. Tell the client not to change the query while paging.
var ErrTokenMismatch = errors.New("page token belongs to another query")

// A token is URL-safe base64 without padding of
//
//	version     1 byte
//	key         4 bytes, hash of the key's id
//	fingerprint 16 bytes
//	side        1 byte
//	values      each a type byte and its payload
//	signature   16 bytes, HMAC-SHA256 of all before, cut
//
// Values are of fixed length, or text with its length in 4 bytes; integers are
// big-endian. Every position has one encoding.
const (
	tokenVersion = 1
	atPrint      = 1 + len(keyTag{})
	atSide       = atPrint + len(Fingerprint{})
	atValues     = atSide + 1
	macSize      = 16
)

// macDomain separates these signatures from others made with the same secret.
const macDomain = "keyset token\x00"

// keyTag identifies the key that signed a token.
type keyTag [4]byte

// Codec encodes positions as tokens and decodes them. It is safe for concurrent use.
type Codec struct {
	signing   *signer
	verifying map[keyTag]*signer
	encoding  *base64.Encoding
}

// NewCodec returns a codec that signs with the first key and accepts tokens signed with any. It
// fails without keys, or if two have the same tag.
func NewCodec(keys ...Key) (*Codec, error) {
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	c := &Codec{
		verifying: make(map[keyTag]*signer, len(keys)),
		// Strict rejects spare bits in the last character, which would give one token several
		// spellings.
		encoding: base64.RawURLEncoding.Strict(),
	}
	for i, k := range keys {
		s := newSigner(k)
		if i == 0 {
			c.signing = s
		}
		c.verifying[s.tag] = s
	}
	return c, nil
}

// Derive returns 32 secret bytes for another use than tokens, which depend on the use and on the
// key that signs.
func (c *Codec) Derive(use string) []byte { return c.signing.sum(nil, []byte("derived for "+use)) }

// Encode returns the token of a position. While the first key stays, the same position and
// fingerprint always give the same token. Encode does not fail; a key too long for [MaxToken] gives
// a token that Decode refuses, so bound the length of text columns that you sort by.
func (c *Codec) Encode(p Position, f Fingerprint) string {
	var room [160]byte
	b := append(room[:0], tokenVersion)
	b = append(b, c.signing.tag[:]...)
	b = append(b, f[:]...)
	b = append(b, byte(p.Side))
	for _, v := range p.Key {
		b = v.append(b)
	}
	b = c.signing.sign(b, b)

	var text [256]byte
	if n := c.encoding.EncodedLen(len(b)); n <= len(text) {
		c.encoding.Encode(text[:], b)
		return string(text[:n])
	}
	return c.encoding.EncodeToString(b)
}

// Decode returns the position of a token. It returns [ErrBadToken] for anything that Encode with
// one of the codec's keys did not make, and [ErrTokenMismatch] for a genuine token with another
// fingerprint; both are wrapped with a reason that is safe to log and to show.
func (c *Codec) Decode(token string, f Fingerprint) (Position, error) {
	if len(token) > MaxToken {
		return Position{}, fmt.Errorf("%w: longer than %d characters", ErrBadToken, MaxToken)
	}
	// The base64 decoder skips line breaks, even if strict.
	if strings.ContainsAny(token, "\r\n") {
		return Position{}, fmt.Errorf("%w: not URL-safe base64", ErrBadToken)
	}
	b, err := c.encoding.DecodeString(token)
	if err != nil {
		return Position{}, fmt.Errorf("%w: not URL-safe base64", ErrBadToken)
	}
	if len(b) < atValues+macSize {
		return Position{}, fmt.Errorf("%w: too short", ErrBadToken)
	}
	if b[0] != tokenVersion {
		return Position{}, fmt.Errorf("%w: unknown version", ErrBadToken)
	}
	s := c.verifying[keyTag(b[1:atPrint])]
	if s == nil {
		return Position{}, fmt.Errorf("%w: unknown key", ErrBadToken)
	}
	body, mac := b[:len(b)-macSize], b[len(b)-macSize:]
	var room [macSize]byte
	if !hmac.Equal(mac, s.sign(room[:0], body)) {
		return Position{}, fmt.Errorf("%w: wrong signature", ErrBadToken)
	}
	if subtle.ConstantTimeCompare(body[atPrint:atSide], f[:]) != 1 {
		return Position{}, ErrTokenMismatch
	}
	p := Position{Side: Side(body[atSide])}
	if p.Key, err = parseValues(body[atValues:]); err != nil {
		return Position{}, err
	}
	if p.Side > SideAt || (len(p.Key) == 0) != (p.Side <= SideEnd) {
		return Position{}, fmt.Errorf("%w: no such position", ErrBadToken)
	}
	return p, nil
}

// signer signs with one key. Setting up an HMAC costs more than using it on a token, so used ones
// are pooled.
type signer struct {
	tag  keyTag
	pool sync.Pool // of hash.Hash
}

func newSigner(k Key) *signer {
	s := &signer{tag: k.tag()}
	s.pool.New = func() any { return hmac.New(sha256.New, k.secret) }
	return s
}

// sign appends the signature of message to dst.
func (s *signer) sign(dst, message []byte) []byte {
	var room [sha256.Size]byte
	return append(dst, s.sum(room[:0], []byte(macDomain), message)[:macSize]...)
}

// sum appends the HMAC of the parts to dst.
func (s *signer) sum(dst []byte, parts ...[]byte) []byte {
	h := s.pool.Get().(hash.Hash)
	defer s.pool.Put(h)
	h.Reset()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(dst)
}

func (v Value) append(b []byte) []byte {
	b = append(b, byte(v.kind))
	switch v.kind {
	case TypeInt64, TypeFloat64, TypeTime:
		return binary.BigEndian.AppendUint64(b, v.num)
	case TypeText:
		return appendText(b, v.text)
	case TypeBool:
		return append(b, byte(v.num))
	case TypeUUID:
		return append(b, v.id[:]...)
	default:
		return b
	}
}

// parseValues parses the values of a token whose signature is valid, so Encode made it. It checks
// them anyway, in case the key is shared with another program.
func parseValues(b []byte) ([]Value, error) {
	var out []Value
	for len(b) > 0 {
		v := Value{kind: Type(b[0])}
		b = b[1:]
		size := 0
		switch v.kind {
		case typeNull:
		case TypeInt64, TypeFloat64, TypeTime:
			size = 8
		case TypeBool:
			size = 1
		case TypeUUID:
			size = len(v.id)
		case TypeText:
			if len(b) < 4 {
				return nil, errValues
			}
			length := binary.BigEndian.Uint32(b)
			if b = b[4:]; uint64(length) > uint64(len(b)) {
				return nil, errValues
			}
			size = int(length)
		default:
			return nil, errValues
		}
		if len(b) < size || len(out) == MaxColumns {
			return nil, errValues
		}
		switch v.kind {
		case TypeInt64, TypeFloat64, TypeTime:
			v.num = binary.BigEndian.Uint64(b)
		case TypeBool:
			if v.num = uint64(b[0]); v.num > 1 {
				return nil, errValues
			}
		case TypeUUID:
			v.id = [16]byte(b[:size])
		case TypeText:
			v.text = string(b[:size])
		}
		b = b[size:]
		out = append(out, v)
	}
	return out, nil
}

var errValues = fmt.Errorf("%w: malformed values", ErrBadToken)
