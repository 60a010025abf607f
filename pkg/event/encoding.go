package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

var (
	// ErrUnknownVersion is returned by Decode for a message of a version that this program does not
	// know, so a newer program wrote it. Upgrade, then redrive the message.
	ErrUnknownVersion = errors.New("unknown event version")
	// ErrInvalid is returned by Decode and Validate for a message that no version of the writer
	// produces. It never becomes valid.
	ErrInvalid = errors.New("invalid event")
)

// maxTime is the latest time that is accepted. It fits a sort key and a Postgres timestamp with
// room to spare.
var maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Encode returns the event's JSON form in the version that its kind needs, and sets e.V. The
// characters <, > and & are not escaped, so that the stream stays readable.
func (e *Event) Encode() ([]byte, error) {
	return e.AppendEncoded(make([]byte, 0, len(e.Record)+usualEnvelope))
}

// AppendEncoded appends what Encode returns to b.
func (e *Event) AppendEncoded(b []byte) ([]byte, error) {
	e.V = e.version()
	if data, ok := e.appendJSON(b); ok {
		return data, nil
	}
	data, err := e.encodePlainly()
	return append(b, data...), err
}

// encodePlainly is Encode by encoding/json alone.
func (e *Event) encodePlainly() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("encode %s event of %s: %w", e.Kind, e.DID, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// usualEnvelope is about what an event takes beside its record.
const usualEnvelope = 640

// appendJSON appends the event as encoding/json writes it, without reflection. ok is false for
// anything unusual or wrong, which is left to encoding/json.
func (e *Event) appendJSON(b []byte) (_ []byte, ok bool) {
	if e.Active || e.Status != "" || e.Upstream != nil || e.Sync != "" || e.Profile != nil || e.Handle != nil {
		return b, false
	}
	b = strconv.AppendInt(append(b, `{"v":`...), int64(e.V), 10)
	b = appendText(append(b, `,"kind":`...), string(e.Kind))
	if b, ok = e.Source.appendJSON(append(b, `,"source":`...)); ok && e.Resume != nil {
		b, ok = e.Resume.appendJSON(append(b, `,"resume":`...))
	}
	if !ok {
		return b, false
	}
	b = appendFilled(b, `,"did":`, e.DID)
	b = appendFilled(b, `,"rkey":`, e.Rkey)
	b = appendFilled(b, `,"rev":`, e.Rev)
	b = appendFilled(b, `,"cid":`, e.CID)
	b = appendTexts(b, `,"tags":[`, e.Tags)
	b = appendTexts(b, `,"langs":[`, e.Langs)
	b = appendFilled(b, `,"createdAt":`, e.CreatedAt)
	if len(e.Record) > 0 {
		b = append(b, `,"record":`...)
		if e.Compact {
			b = append(b, e.Record...)
		} else {
			record := bytes.NewBuffer(b)
			if json.Compact(record, e.Record) != nil {
				return b, false
			}
			b = record.Bytes()
		}
	}
	return append(b, '}'), true
}

func (p *Position) appendJSON(b []byte) (_ []byte, ok bool) {
	if p.Sync != (OpenSync{}) || !p.Resync.IsZero() {
		return b, false
	}
	b = appendText(append(b, `{"host":`...), p.Host)
	b = strconv.AppendUint(append(b, `,"seq":`...), p.Seq, 10)
	if b, ok = appendTime(append(b, `,"time":"`...), p.Time); ok && !p.Clock.IsZero() {
		b, ok = appendTime(append(b, `,"clock":"`...), p.Clock)
	}
	return append(appendFilled(b, `,"mark":`, p.Mark), '}'), ok
}

func appendTime(b []byte, t time.Time) (_ []byte, ok bool) {
	year := t.Year()
	return append(t.AppendFormat(b, time.RFC3339Nano), '"'), t.Location() == time.UTC && year >= 0 && year <= 9999
}

func appendTexts(b []byte, name string, all []string) []byte {
	if len(all) == 0 {
		return b
	}
	b = append(b, name...)
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, s)
	}
	return append(b, ']')
}

func appendFilled(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendText(append(b, name...), s)
}

// appendText appends s as a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			var quoted bytes.Buffer
			enc := json.NewEncoder(&quoted)
			enc.SetEscapeHTML(false)
			_ = enc.Encode(s) // no string fails
			return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// Decode decodes and validates one message of the stream. The error wraps ErrUnknownVersion or
// ErrInvalid; either way this program cannot apply the message, and it belongs in the dead letters.
//
// Tags are returned in today's normal form, whatever the writer's was. A create or update that
// loses all its tags this way removes its post.
func Decode(data []byte) (*Event, error) {
	var e Event
	if e.parse(data) {
		return e.decoded()
	}
	return decodePlainly(data)
}

// decodePlainly does what Decode does with encoding/json alone.
func decodePlainly(data []byte) (*Event, error) {
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		// A newer version may have changed a field's type: check the version before calling the
		// message invalid.
		var v struct {
			V int `json:"v"`
		}
		if json.Unmarshal(data, &v) == nil && v.V > Version {
			return nil, fmt.Errorf("%w %d", ErrUnknownVersion, v.V)
		}
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return e.decoded()
}

// decoded validates a decoded event and converts it to today's form.
func (e *Event) decoded() (*Event, error) {
	if e.V > Version {
		return nil, fmt.Errorf("%w %d", ErrUnknownVersion, e.V)
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	e.Tags, _ = Tags(e.Tags)
	e.normalizeAuthor()
	e.Source.normalize()
	if e.Resume != nil {
		e.Resume.normalize()
	}
	if e.Upstream != nil {
		e.Upstream.Time = e.Upstream.Time.UTC().Truncate(time.Microsecond)
	}
	return e, nil
}

// parse decodes a message like encoding/json, in a third of the time. It returns false for anything
// unusual or wrong, which is left to encoding/json. The record is not copied.
func (e *Event) parse(data []byte) (ok bool) {
	if !json.Valid(data) || !utf8.Valid(data) {
		return false
	}
	return eachOnce(data, func(name string, value []byte) bool {
		switch name {
		case "v":
			n, err := strconv.Atoi(string(value))
			e.V = n
			return err == nil && value[0] != '-'
		case "kind":
			e.Kind = Kind(text(value))
			return value[0] == '"'
		case "source":
			return e.Source.parse(value)
		case "resume":
			e.Resume = new(Position)
			return e.Resume.parse(value)
		case "did":
			return parseText(value, &e.DID)
		case "rkey":
			return parseText(value, &e.Rkey)
		case "rev":
			return parseText(value, &e.Rev)
		case "cid":
			return parseText(value, &e.CID)
		case "createdAt":
			return parseText(value, &e.CreatedAt)
		case "tags":
			return parseTexts(value, &e.Tags)
		case "langs":
			return parseTexts(value, &e.Langs)
		case "record":
			e.Record = value[:len(value):len(value)]
			return true
		}
		return false
	})
}

func (p *Position) parse(data []byte) (ok bool) {
	return eachOnce(data, func(name string, value []byte) bool {
		switch name {
		case "host":
			return parseText(value, &p.Host)
		case "seq":
			n, err := strconv.ParseUint(string(value), 10, 64)
			p.Seq = n
			return err == nil
		case "time":
			return value[0] == '"' && p.Time.UnmarshalJSON(value) == nil
		case "clock":
			return value[0] == '"' && p.Clock.UnmarshalJSON(value) == nil
		case "mark":
			return parseText(value, &p.Mark)
		}
		return false
	})
}

// eachOnce calls fn with each field of an object until fn returns false. It reports whether fn
// never returned false and no name was repeated.
func eachOnce(object []byte, fn func(name string, value []byte) bool) bool {
	if len(object) == 0 || object[0] != '{' {
		return false
	}
	ok := true
	var names [16]string
	n := 0
	fields(object, func(name string, value []byte) {
		if ok = ok && n < len(names) && !slices.Contains(names[:n], name) && fn(name, value); ok {
			names[n] = name
			n++
		}
	})
	return ok
}

func parseText(value []byte, s *string) bool {
	*s = text(value)
	return value[0] == '"'
}

func parseTexts(value []byte, all *[]string) bool {
	ok := value[0] == '['
	elements(value, func(value []byte) {
		ok = ok && value[0] == '"'
		*all = append(*all, text(value))
	})
	return ok && len(*all) > 0
}

func (p *Position) normalize() {
	p.Time = p.Time.UTC().Truncate(time.Microsecond)
	for _, t := range []*time.Time{&p.Clock, &p.Resync} {
		if !t.IsZero() { // the zero time is in UTC already, and must stay comparable with ==
			*t = t.UTC().Truncate(time.Microsecond)
		}
	}
}

// Valid reports whether the position can be stored.
func (p *Position) Valid() bool { return p.bad() == "" }

// bad names the field that cannot be stored, or returns "".
func (p *Position) bad() string {
	if p.Host == "" {
		return "host"
	}
	if field := badPosition(p.Seq, p.Time); field != "" {
		return field
	}
	if !p.Clock.IsZero() && !storable(p.Clock) {
		return "clock"
	}
	if !p.Resync.IsZero() && !storable(p.Resync) {
		return "resync"
	}
	if s := p.Sync; s != (OpenSync{}) && (!ValidDID(s.DID) || !ValidRev(s.Rev) || s.Fixed != "" && !ValidRev(s.Fixed)) {
		return "sync"
	}
	return ""
}

// badPosition names which of a sequence number and its time cannot be stored, or returns "".
func badPosition(seq uint64, t time.Time) string {
	switch {
	case seq > 1<<63-1: // they become Postgres bigints
		return "seq"
	case !storable(t):
		return "time"
	}
	return ""
}

func storable(t time.Time) bool { return !t.Before(time.Unix(0, 0)) && !t.After(maxTime) }

// Validate checks what the fold and the schema rely on. The error wraps ErrInvalid and names the
// field.
func (e *Event) Validate() error {
	bad := func(field string) error { return fmt.Errorf("%w: %s event: bad %s", ErrInvalid, e.Kind, field) }
	if e.V < e.version() || e.V > Version {
		return bad("v")
	}
	if field := e.Source.bad(); field != "" {
		return bad("source." + field)
	}
	if e.Resume != nil {
		if field := e.Resume.bad(); field != "" {
			return bad("resume." + field)
		}
	}
	if e.Upstream != nil {
		if field := badPosition(e.Upstream.Seq, e.Upstream.Time); field != "" {
			return bad("upstream." + field)
		}
	}
	switch e.Kind {
	case KindPosition:
		return nil
	case KindAccount:
		if !ValidDID(e.DID) {
			return bad("did")
		}
		return nil
	case KindAuthor:
		if field := e.badAuthor(); field != "" {
			return bad(field)
		}
		return nil
	case KindSync:
		if !ValidDID(e.DID) {
			return bad("did")
		}
		if !ValidRev(e.Rev) {
			return bad("rev")
		}
		return nil
	case KindCreate, KindUpdate, KindRemove, KindDelete:
	default:
		return fmt.Errorf("%w: unknown kind %q", ErrInvalid, string(e.Kind))
	}
	if !ValidDID(e.DID) {
		return bad("did")
	}
	if !ValidRkey(e.Rkey) {
		return bad("rkey")
	}
	if !ValidRev(e.Rev) {
		return bad("rev")
	}
	if e.Kind == KindRemove || e.Kind == KindDelete {
		return nil
	}
	if len(e.Tags) == 0 || len(e.Tags) > MaxTagsPerPost {
		return bad("tags")
	}
	seen := make(map[string]struct{}, len(e.Tags))
	for _, tag := range e.Tags {
		if n, err := NormalizeTag(tag); (err != nil || n != tag) && !wasNormal(tag) {
			return bad("tags")
		}
		if _, twice := seen[tag]; twice {
			return bad("tags")
		}
		seen[tag] = struct{}{}
	}
	for _, lang := range e.Langs {
		if !validLang(lang) {
			return bad("langs")
		}
	}
	if !ValidCID(e.CID) {
		return bad("cid")
	}
	// The schema stores the record as text, and JSON decoding does not check its encoding.
	if !bytes.HasPrefix(bytes.TrimLeft(e.Record, " \t\r\n"), []byte("{")) || !utf8.Valid(e.Record) {
		return bad("record")
	}
	return nil
}
