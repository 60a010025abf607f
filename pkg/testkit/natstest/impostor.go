package natstest

import (
	"fmt"
	"net"
	"testing"
)

// Impostor listens at an address, and claims to be a NATS server of that version. It answers only
// pings.
func Impostor(t testing.TB, address, version string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("natstest: listen: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "INFO {\"server_id\":\"x\",\"server_name\":\"old\",\"version\":%q,\"headers\":true,\"max_payload\":1048576}\r\n", version)
				buf := make([]byte, 4<<10)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					fmt.Fprint(c, "PONG\r\n")
				}
			}()
		}
	}()
	return "nats://" + l.Addr().String()
}
