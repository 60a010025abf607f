package fault

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is one client's connection and its connection to the server.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	tear           atomic.Bool // at the server's next frame
	once           sync.Once
	done           chan struct{} // closed by sever
}

// sever ends both connections, with a reset unless how is Cut. A second call does nothing.
func (l *link) sever(how Break) {
	l.once.Do(func() {
		close(l.done)
		for _, c := range []net.Conn{l.client, l.server} {
			if tcp, ok := c.(*net.TCPConn); ok && how != Cut {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
		}
	})
}

// strike applies the fault to the link. data is the frame at which it strikes, on its way to dst.
// It reports whether the link continues.
func (l *link) strike(a *Armed, dst net.Conn, data []byte) bool {
	how := a.fault.Break
	if how == Torn {
		l.pass(dst, data[:len(data)/2])
	}
	a.fire()
	switch how {
	case Silent:
		return true
	case Nothing:
		return l.pass(dst, data)
	}
	l.sever(how)
	return false
}

// pass writes data when it may flow, and reports whether the link continues.
func (l *link) pass(dst net.Conn, data []byte) bool {
	for {
		l.proxy.mu.Lock()
		if dst == l.client && !l.proxy.held {
			l.proxy.sent += int64(len(data))
		}
		held, changed, rate := l.proxy.held, l.proxy.changed, l.proxy.rate
		l.proxy.mu.Unlock()
		if held {
			select {
			case <-changed:
				continue
			case <-l.done:
				return false
			}
		}
		if rate > 0 {
			select {
			case <-time.After(time.Duration(len(data)) * time.Second / time.Duration(rate)):
			case <-l.done:
				return false
			}
		}
		break
	}
	if dst == l.client && l.tear.Load() {
		_, _ = dst.Write(data[:len(data)/2])
		l.sever(Reset)
		return false
	}
	_, err := dst.Write(data)
	return err == nil
}

// copy forwards all data.
func (l *link) copy(dst, src net.Conn) {
	buf := make([]byte, chunk)
	for {
		n, err := src.Read(buf)
		if n > 0 && !l.pass(dst, buf[:n]) || err != nil {
			return
		}
	}
}
