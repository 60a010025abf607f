package fault

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Requests instead of a startup message (PostgreSQL's documentation, Message Formats).
const (
	sslRequest    = 80877103
	gssRequest    = 80877104
	headerOfFirst = 4 // bytes: the first message has no type
	header        = 5
)

// postgresLink parses the Postgres frontend/backend protocol.
type postgresLink struct {
	*link
	// Owned by up.
	statements  map[string]string // prepared ones, by name
	transaction []string          // statements since the last begin

	mu sync.Mutex
	// asked and answered count the exchanges: each ends with ReadyForQuery. Both
	// and pending are guarded by mu.
	asked, answered int
	// pending is a fault that strikes at the answer to the exchange after
	// pendingAfter others.
	pending      *Armed
	pendingAfter int
}

func (l *postgresLink) up() {
	r := bufio.NewReader(l.client)
	if !l.startup(r) {
		return
	}
	for {
		kind, frame, err := readPostgres(r)
		if err != nil {
			return
		}
		if a := l.judge(kind, frame[header:]); a != nil {
			if a.fault.Form == Failed {
				if !l.strike(a, l.server, frame) {
					return
				}
				continue
			}
			l.mu.Lock()
			l.pending, l.pendingAfter = a, l.asked
			l.mu.Unlock()
		}
		if kind == 'Q' || kind == 'S' {
			l.mu.Lock()
			l.asked++
			l.mu.Unlock()
		}
		if !l.pass(l.server, frame) {
			return
		}
	}
}

// startup forwards the messages before those with a type. It refuses encryption, which it could not
// read.
func (l *postgresLink) startup(r *bufio.Reader) bool {
	for {
		head, err := r.Peek(headerOfFirst)
		if err != nil {
			return false
		}
		size := int(binary.BigEndian.Uint32(head))
		if size < headerOfFirst || size > maxFrame {
			return false
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(r, message); err != nil {
			return false
		}
		if size == 8 {
			if code := binary.BigEndian.Uint32(message[headerOfFirst:]); code == sslRequest || code == gssRequest {
				if !l.pass(l.client, []byte("N")) {
					return false
				}
				continue
			}
		}
		// The answer to it ends with ReadyForQuery too.
		l.mu.Lock()
		l.asked++
		l.mu.Unlock()
		return l.pass(l.server, message)
	}
}

// judge follows the statements and returns the fault that fires at this message.
func (l *postgresLink) judge(kind byte, body []byte) *Armed {
	var text string
	switch kind {
	case 'P': // name, statement, ...
		name, rest, _ := bytes.Cut(body, []byte{0})
		statement, _, _ := bytes.Cut(rest, []byte{0})
		l.statements[string(name)] = string(statement)
		return nil
	case 'B': // portal, name, ...
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _, _ := bytes.Cut(rest, []byte{0})
		text = l.statements[string(name)]
	case 'Q':
		text = string(bytes.TrimRight(body, "\x00"))
	default:
		return nil
	}
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(text)), "begin") {
		l.transaction = nil
	}
	op := Op{Text: text, Before: l.transaction}
	l.transaction = append(l.transaction, text)
	return l.proxy.judge(op, true)
}

func (l *postgresLink) down() {
	r := bufio.NewReader(l.server)
	var lost []byte // the answer that is not passed on
	refused := false
	for {
		kind, frame, err := readPostgres(r)
		if err != nil {
			return
		}
		l.mu.Lock()
		a := l.pending
		if a != nil && l.answered < l.pendingAfter {
			a = nil // the answer to an earlier request
		}
		if kind == 'Z' {
			l.answered++
			if a != nil {
				l.pending = nil
			}
		}
		l.mu.Unlock()
		if a == nil {
			if !l.pass(l.client, frame) {
				return
			}
			continue
		}
		lost = append(lost, frame...)
		refused = refused || kind == 'E'
		if kind != 'Z' {
			continue
		}
		if refused {
			// The server would not execute it, so the fault would be another than intended.
			l.proxy.rearm(a)
			if !l.pass(l.client, lost) {
				return
			}
		} else if !l.strike(a, l.client, lost) {
			return
		}
		lost, refused = nil, false
	}
}

// readPostgres reads one message that has a type.
func readPostgres(r *bufio.Reader) (kind byte, frame []byte, err error) {
	head, err := r.Peek(header)
	if err != nil {
		return 0, nil, err
	}
	size := int(binary.BigEndian.Uint32(head[1:])) + 1
	if size < header || size > maxFrame {
		return 0, nil, fmt.Errorf("read a Postgres message of type %q: bad size %d", head[0], size)
	}
	frame = make([]byte, size)
	if _, err := io.ReadFull(r, frame); err != nil {
		return 0, nil, err
	}
	return frame[0], frame, nil
}
