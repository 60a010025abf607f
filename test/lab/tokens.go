package lab

import (
	"errors"
	"fmt"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// Tokens is the result of using page tokens that were not made for the query.
type Tokens struct {
	Tries []TokenTry
}

// TokenTry is one kind of token and how many were tried.
type TokenTry struct {
	What string
	// Tried tokens were all refused: Bad ones as invalid, Mismatched ones as another query's.
	Tried, Bad, Mismatched int
}

// tokens derives bad tokens from a good one, and passes them to a codec like the API. Like the API,
// it needs no database to refuse them.
func tokens() (Tokens, error) {
	key, err := keyset.NewKey("lab", make([]byte, keyset.MinSecret))
	if err != nil {
		return Tokens{}, err
	}
	other, err := keyset.NewKey("other", append(make([]byte, keyset.MinSecret), 1))
	if err != nil {
		return Tokens{}, err
	}
	codec, err := keyset.NewCodec(key)
	if err != nil {
		return Tokens{}, err
	}
	foreign, err := keyset.NewCodec(other)
	if err != nil {
		return Tokens{}, err
	}
	printOf := func(tag string) keyset.Fingerprint {
		return query.PostOrder.Fingerprint(keyset.Filter{Name: "tags", Values: []string{tag}})
	}
	place := keyset.Below(keyset.UUID(event.NewKey(corpusStart, "at://lab")))
	good := codec.Encode(place, printOf(hotTag))
	if _, err := codec.Decode(good, printOf(hotTag)); err != nil {
		return Tokens{}, fmt.Errorf("a genuine token is refused: %w", err)
	}
	var t Tokens
	try := func(what string, all ...string) {
		one := TokenTry{What: what, Tried: len(all)}
		for _, token := range all {
			switch _, e := codec.Decode(token, printOf(hotTag)); {
			case errors.Is(e, keyset.ErrTokenMismatch):
				one.Mismatched++
			case errors.Is(e, keyset.ErrBadToken):
				one.Bad++
			default:
				err = errors.Join(err, fmt.Errorf("a bad token (%s) is accepted", what))
			}
		}
		t.Tries = append(t.Tries, one)
	}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var changed, cut []string
	for i := range good {
		for _, c := range []byte(letters) {
			if c != good[i] {
				changed = append(changed, good[:i]+string(c)+good[i+1:])
			}
		}
		cut = append(cut, good[:i])
	}
	try("any one character changed to any other", changed...)
	try("cut off anywhere", cut...)
	try("something appended", good+"A", good+good, good+"=")
	try("signed with another key", foreign.Encode(place, printOf(hotTag)))
	try("of another query", codec.Encode(place, printOf(floodTag)), codec.Encode(place, query.TagOrder.Fingerprint()))
	return t, err
}
