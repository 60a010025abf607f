package service

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/userinfo"
)

const (
	natsReconnectWait   = 500 * time.Millisecond
	natsReconnectJitter = 500 * time.Millisecond
	natsPing            = 5 * time.Second
)

// ConnectNATS connects as the settings say, and keeps trying for ever: a
// server that is away at start is no reason not to start; one that is too old is.
// changed, if not nil, is called with nil when connected and with an error when
// not, or to a server that is too old. The error is a *ConfigError.
func ConnectNATS(v *Values, logger *slog.Logger, changed func(error)) (*nats.Conn, error) {
	// Each program has inboxes of its own, which permissions can name.
	opts := []nats.Option{nats.Name("tagstream " + v.program), nats.CustomInboxPrefix("_INBOX_" + v.program)}
	if f := v.file("NATS_CREDS_FILE"); f != "" {
		opts = append(opts, nats.UserCredentials(f))
	}
	if f := v.file("NATS_NKEY_FILE"); f != "" {
		opt, err := nats.NkeyOptionFromSeed(f)
		if err != nil {
			v.Fail("NATS_NKEY_FILE", err)
		} else {
			opts = append(opts, opt)
		}
	}
	if f := v.file("NATS_CA_FILE"); f != "" {
		opt := nats.RootCAs(f)
		if err := opt(&nats.Options{}); err != nil {
			v.Fail("NATS_CA_FILE", err)
		}
		opts = append(opts, opt)
	}
	cert, key := v.file("NATS_CERT_FILE"), v.file("NATS_KEY_FILE")
	switch {
	case cert != "" && key != "":
		opt := nats.ClientCert(cert, key)
		if err := opt(&nats.Options{}); err != nil {
			v.Fail("NATS_CERT_FILE", err)
		}
		opts = append(opts, opt)
	case cert != "":
		v.Fail("NATS_KEY_FILE", errors.New("must be set with NATS_CERT_FILE"))
	case key != "":
		v.Fail("NATS_CERT_FILE", errors.New("must be set with NATS_KEY_FILE"))
	}
	if v.Choice("NATS_TLS_FIRST", "on", "off") == "on" {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	if d := v.String("NATS_DOMAIN"); strings.ContainsAny(d, ".*> \t") {
		v.Fail("NATS_DOMAIN", fmt.Errorf("%q is not a domain's name", d))
	}
	servers := NATSServers(v)
	if err := v.Err(); err != nil {
		return nil, err
	}
	nc, err := nats.Connect(servers, append(opts, NATSOptions(logger, changed)...)...)
	if err != nil {
		return nil, &ConfigError{Prefix + "NATS_URL", err}
	}
	if err := stream.CheckServer(nc); err != nil {
		nc.Close()
		return nil, &ConfigError{Prefix + "NATS_URL", err}
	}
	// Before the first connection a refusal is told to no handler.
	if err := nc.LastError(); err != nil && changed != nil && !nc.IsConnected() {
		changed(fmt.Errorf("NATS: %w", err))
		if nc.IsConnected() { // meanwhile
			changed(nil)
		}
	}
	return nc, nil
}

// NATSServers returns the servers that the settings name, with commas between. What
// v.Err says of a bad one quotes nothing of it.
func NATSServers(v *Values) string {
	for _, server := range v.List("NATS_URL") {
		if err := userinfo.Check(server, userinfo.Ends); err != nil {
			v.Fail("NATS_URL", err)
		}
		u, err := url.Parse(server)
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			v.Fail("NATS_URL", errors.New("must be a URL such as nats://127.0.0.1:4222, or several with commas between"))
		}
	}
	return v.String("NATS_URL")
}

// file returns the setting's file, which must be readable.
func (v *Values) file(name string) string {
	path := v.String(name)
	if path == "" {
		return ""
	}
	if _, err := os.ReadFile(path); err != nil {
		v.Fail(name, err)
	}
	return path
}

var errNATSAway = errors.New("not connected to NATS")

// NATSOptions are the options of every NATS connection of ours, embedded or
// not: reconnect for ever, give up buffering (the writer keeps its own batch),
// tell of changes once.
func NATSOptions(logger *slog.Logger, changed func(error)) []nats.Option {
	if changed == nil {
		changed = func(error) {}
	}
	var away atomic.Bool
	connected := func(nc *nats.Conn, word string) {
		away.Store(false)
		if err := stream.CheckServer(nc); err != nil {
			changed(err)
			logger.Error("nothing is written to this server", "err", err)
			return
		}
		changed(nil)
		logger.Info(word, "server", nc.ConnectedServerName())
	}
	return []nats.Option{
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(natsReconnectWait),
		nats.ReconnectJitter(natsReconnectJitter, natsReconnectJitter),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(natsPing),
		nats.MaxPingsOutstanding(2),
		// Credentials may be mended on the server while this runs.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			changed(fmt.Errorf("NATS: %w", err))
			// Each attempt fails; one word is enough.
			if !away.Swap(true) {
				logger.Warn("cannot reach NATS; trying again", "err", err)
			}
		}),
		nats.ConnectHandler(func(nc *nats.Conn) { connected(nc, "connected to NATS") }),
		nats.ReconnectHandler(func(nc *nats.Conn) { connected(nc, "connected to NATS again") }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if nc.IsClosed() {
				return // by ourselves
			}
			if err == nil {
				err = errNATSAway
			}
			changed(fmt.Errorf("NATS: %w", err))
			if !away.Swap(true) {
				logger.Warn("lost NATS, reconnecting", "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			logger.Warn("NATS reports an error", "err", err, "subject", subject)
		}),
	}
}
