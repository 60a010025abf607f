package firehose

import (
	"bufio"
	"encoding/binary"
	"io"
	"net/http"
)

// oversizeFilter is a transport whose websockets leave out messages longer than frameLimit. The
// client would end the connection at such a message and meet it again after each reconnect,
// endlessly.
type oversizeFilter struct {
	base http.RoundTripper
	// skipped, if not nil, is called for each message left out, from any goroutine.
	skipped func(host string, bytes uint64)
}

func (f *oversizeFilter) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := f.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		return resp, nil
	}
	host := req.URL.Scheme + "://" + req.URL.Host
	resp.Body = &filteredConn{ReadWriteCloser: conn, in: bufio.NewReader(conn), limit: frameLimit, skipped: func(bytes uint64) {
		if f.skipped != nil {
			f.skipped(host, bytes)
		}
	}}
	return resp, nil
}

// filteredConn reads the frames of a websocket (RFC 6455, section 5.2). It passes on a message in
// several frames whatever its length; Jetstream hosts send none.
type filteredConn struct {
	io.ReadWriteCloser
	in      *bufio.Reader
	limit   uint64
	skipped func(bytes uint64)
	head    []byte // of the present frame, as far as not passed on
	left    uint64 // the same of its payload
}

func (c *filteredConn) Read(p []byte) (int, error) {
	for len(c.head) == 0 && c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	n, err := c.in.Read(p[:min(uint64(len(p)), c.left)])
	c.left -= uint64(n)
	return n, err
}

const (
	wsFinal  = 0x80
	wsOpcode = 0x0f
	wsText   = 0x1
	wsBinary = 0x2
	wsMasked = 0x80
	wsMask   = 4 // bytes
	wsLen16  = 126
	wsLen64  = 127
)

// next reads the head of the next frame, or skips the frame.
func (c *filteredConn) next() error {
	head, err := c.in.Peek(2)
	if err != nil {
		return err
	}
	size := 2
	switch head[1] &^ wsMasked {
	case wsLen16:
		size += 2
	case wsLen64:
		size += 8
	}
	buf := make([]byte, size)
	if _, err := io.ReadFull(c.in, buf); err != nil {
		return err
	}
	length := uint64(buf[1] &^ wsMasked)
	switch length {
	case wsLen16:
		length = uint64(binary.BigEndian.Uint16(buf[2:]))
	case wsLen64:
		length = binary.BigEndian.Uint64(buf[2:])
	}
	payload := length
	if buf[1]&wsMasked != 0 {
		payload += wsMask
	}
	opcode := buf[0] & wsOpcode
	if whole := buf[0]&wsFinal != 0 && (opcode == wsText || opcode == wsBinary); !whole || length <= c.limit {
		c.head, c.left = buf, payload
		return nil
	}
	for payload > 0 {
		n, err := c.in.Discard(int(min(payload, frameLimit))) // an int on any machine
		payload -= uint64(n)
		if err != nil {
			return err
		}
	}
	c.skipped(length)
	return nil
}
