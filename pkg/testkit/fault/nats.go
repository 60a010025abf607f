package fault

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// maxFrame bounds a frame that is read into memory, in bytes.
const maxFrame = 64 << 20

// natsLink parses the NATS client protocol.
type natsLink struct {
	*link
	mu   sync.Mutex
	lost map[string]*Armed // faults that strike at an answer, by its subject; guarded by mu
}

// natsFrame is a line of the protocol with the message that belongs to it.
type natsFrame struct {
	subject, reply string // of a message
	body           []byte // of a message: headers and payload
	raw            []byte
}

func (l *natsLink) up() {
	r := bufio.NewReader(l.client)
	for {
		f, err := readNATS(r)
		if err != nil {
			return
		}
		var a *Armed
		if f.body != nil {
			a = l.proxy.judge(Op{Text: f.subject, Body: f.body}, f.reply != "")
		}
		switch {
		case a == nil:
		case a.fault.Form == Failed:
			if !l.strike(a, l.server, f.raw) {
				return
			}
			continue
		default:
			l.mu.Lock()
			l.lost[f.reply] = a
			l.mu.Unlock()
		}
		if !l.pass(l.server, f.raw) {
			return
		}
	}
}

func (l *natsLink) down() {
	r := bufio.NewReader(l.server)
	for {
		f, err := readNATS(r)
		if err != nil {
			return
		}
		if f.body != nil {
			l.mu.Lock()
			a := l.lost[f.subject]
			delete(l.lost, f.subject)
			l.mu.Unlock()
			if a != nil {
				if !l.strike(a, l.client, f.raw) {
					return
				}
				continue
			}
		}
		if !l.pass(l.client, f.raw) {
			return
		}
	}
}

// readNATS reads one frame of either direction.
func readNATS(r *bufio.Reader) (natsFrame, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return natsFrame{}, err
	}
	f := natsFrame{raw: line}
	fields := strings.Fields(string(line))
	if len(fields) < 3 {
		return f, nil
	}
	// Before the sizes: the subject, the subscription's id if the server sends, and the reply
	// subject if there is one.
	sizes, named := 1, 2
	switch strings.ToUpper(fields[0]) {
	case "PUB":
	case "HPUB":
		sizes = 2
	case "MSG":
		named = 3
	case "HMSG":
		sizes, named = 2, 3
	default:
		return f, nil
	}
	size, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil || size < 0 || size > maxFrame {
		return f, fmt.Errorf("read a NATS frame: bad size in %q", line)
	}
	f.subject = fields[1]
	if len(fields) == named+1+sizes {
		f.reply = fields[named]
	}
	message := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(r, message); err != nil {
		return f, err
	}
	f.body, f.raw = message, append(line, message...)
	return f, nil
}
