package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
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

// natsAnswers is how long a short-lived verb waits for NATS.
const natsAnswers = 10 * time.Second

// Connect connects as the settings say, and retries forever: a server that is away does not prevent
// a start, but one that is too old does. changed, if not nil, is called with nil when connected,
// and with an error when disconnected or connected to a server that is too old. The error is a
// *ConfigError.
func (n NATS) Connect(p *Process, logger *slog.Logger, changed func(error)) (*nats.Conn, error) {
	servers, err := n.Servers(p)
	if err != nil {
		return nil, err
	}
	// Each program has its own inboxes, which permissions can name.
	opts := []nats.Option{nats.Name("tagstream " + p.Program), nats.CustomInboxPrefix("_INBOX_" + p.Program)}
	add := func(setting string, opt nats.Option) {
		opts = append(opts, opt)
		if err == nil {
			err = Bad(setting, opt(&nats.Options{}))
		}
	}
	if n.CredsFile != "" {
		opts = append(opts, nats.UserCredentials(n.CredsFile))
	}
	if n.NkeyFile != "" {
		opt, nkeyErr := nats.NkeyOptionFromSeed(n.NkeyFile)
		if nkeyErr != nil {
			return nil, Bad("NATS_NKEY_FILE", nkeyErr)
		}
		opts = append(opts, opt)
	}
	if n.CAFile != "" {
		add("NATS_CA_FILE", nats.RootCAs(n.CAFile))
	}
	switch {
	case n.CertFile != "" && n.KeyFile != "":
		add("NATS_CERT_FILE", nats.ClientCert(n.CertFile, n.KeyFile))
	case n.CertFile != "":
		return nil, Bad("NATS_KEY_FILE", errors.New("must be set with NATS_CERT_FILE"))
	case n.KeyFile != "":
		return nil, Bad("NATS_CERT_FILE", errors.New("must be set with NATS_KEY_FILE"))
	}
	if n.TLSFirst == "on" {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	if strings.ContainsAny(n.Domain, ".*> \t") {
		return nil, Bad("NATS_DOMAIN", fmt.Errorf("%q is not a domain's name", n.Domain))
	}
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(servers, append(opts, NATSOptions(logger, changed)...)...)
	if err != nil {
		return nil, Bad("NATS_URL", err)
	}
	if err := stream.CheckServer(nc); err != nil {
		nc.Close()
		return nil, Bad("NATS_URL", err)
	}
	// Before the first connection, no handler is called for a refusal.
	if err := nc.LastError(); err != nil && changed != nil && !nc.IsConnected() {
		changed(fmt.Errorf("NATS: %w", err))
		if nc.IsConnected() { // by now
			changed(nil)
		}
	}
	return nc, nil
}

// Dial connects for a short-lived verb, with a time limit.
func (n NATS) Dial(ctx context.Context, p *Process) (*nats.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, natsAnswers)
	defer cancel()
	connected := make(chan struct{}, 1)
	var last atomic.Pointer[error]
	nc, err := n.Connect(p, slog.New(slog.DiscardHandler), func(err error) {
		if err != nil {
			last.Store(&err)
			return
		}
		select {
		case connected <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-connected:
		return nc, nil
	case <-wait.Done():
	}
	nc.Close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	err = fmt.Errorf("no NATS server answers within %s; is %sNATS_URL right?", natsAnswers, Prefix)
	if why := last.Load(); why != nil {
		err = fmt.Errorf("%w %w", err, *why)
	}
	return nil, err
}

// Servers returns the configured servers, separated by commas, or the one that p finds. The error
// quotes nothing of a bad URL.
func (n NATS) Servers(p *Process) (string, error) {
	if n.URL == "" && p.Local != nil {
		return p.Local.NATS()
	}
	for server := range strings.SplitSeq(n.URL, ",") {
		server = strings.TrimSpace(server)
		if err := userinfo.Check(server, userinfo.Ends); err != nil {
			return "", Bad("NATS_URL", err)
		}
		u, err := url.Parse(server)
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return "", Bad("NATS_URL", errors.New("must be a URL such as nats://127.0.0.1:4222, or several with commas between"))
		}
	}
	return n.URL, nil
}

var errNATSAway = errors.New("not connected to NATS")

// NATSOptions returns the options of every NATS connection, embedded or not: reconnect forever,
// buffer nothing (the writer keeps its own batch), report each change once.
func NATSOptions(logger *slog.Logger, changed func(error)) []nats.Option {
	if changed == nil {
		changed = func(error) {}
	}
	var away atomic.Bool
	connected := func(nc *nats.Conn, word string) {
		away.Store(false)
		if err := stream.CheckServer(nc); err != nil {
			changed(err)
			logger.Error("this NATS server cannot be used", "err", err)
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
		// Credentials may be fixed on the server while this program runs.
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			changed(fmt.Errorf("NATS: %w", err))
			// Every attempt fails; one log line is enough.
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
				logger.Warn("lost the connection to NATS; reconnecting", "err", err)
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
