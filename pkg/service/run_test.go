package service_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

func TestLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := mustRead[service.Log](t, "--log-format=json", "--log-level=warn").Logger(&out)
	logger.Info("quiet")
	logger.Warn("loud")
	require.Contains(t, out.String(), `"level":"WARN","msg":"loud"`)
	require.NotContains(t, out.String(), "quiet")
	for variable, want := range map[string]string{
		"TAGSTREAM_LOG_LEVEL":  `TAGSTREAM_LOG_LEVEL: "x" is not debug, info, warn or error`,
		"TAGSTREAM_LOG_FORMAT": `TAGSTREAM_LOG_FORMAT: "x" is not text or json`,
	} {
		_, err := read[service.Log](service.Ingest, nil, []string{variable + "=x"})
		require.EqualError(t, err, want)
	}
}

// ingest is a process of the ingest program.
var ingest = &service.Process{Program: service.Ingest}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestServe(t *testing.T) {
	t.Parallel()
	get := func(t *testing.T, url string) (int, string) {
		t.Helper()
		resp, err := http.Get(url)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	address := freePort(t)
	s := mustRead[service.Observability](t, "--ops-listen="+address)
	ctx, cancel := context.WithCancel(t.Context())
	stopping, finish := make(chan struct{}), make(chan struct{})
	broken := errors.New("it ended badly")
	result := make(chan error, 1)
	go func() {
		result <- s.Serve(ctx, &service.Process{Program: service.Ingest, Stderr: io.Discard}, []string{"part"}, func(ctx context.Context, d service.Deps) error {
			d.Ops.HandleFunc("/mine", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "yes") })
			d.Health.Set("part", nil)
			<-ctx.Done()
			close(stopping)
			<-finish
			return broken
		})
	}()
	poll.Until(t, patience, func() (bool, string) {
		resp, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return false, err.Error()
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
	_, mine := get(t, "http://"+address+"/mine")
	require.Equal(t, "yes", mine)
	cancel()
	<-stopping
	poll.Until(t, patience, func() (bool, string) {
		code, body := get(t, "http://"+address+"/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, `"service":"stopping"`), body
	})
	code, _ := get(t, "http://"+address+"/metrics")
	require.Equal(t, http.StatusOK, code, "the operator must see the stop")
	close(finish)
	require.ErrorIs(t, <-result, broken)
	_, err := net.Dial("tcp", address)
	require.Error(t, err)
}

func TestServeRefuses(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	never := func(context.Context, service.Deps) error { panic("nothing is started") }
	p := &service.Process{Program: service.Ingest, Stderr: io.Discard}
	err = mustRead[service.Observability](t, "--ops-listen="+taken.Addr().String()).Serve(t.Context(), p, nil, never)
	require.ErrorContains(t, err, "TAGSTREAM_OPS_LISTEN")
	var bad *service.ConfigError
	require.False(t, errors.As(err, &bad), "it is not a configuration error: the port may be free at the next start")

	err = mustRead[service.Observability](t, "--traces-url=nowhere").Serve(t.Context(), p, nil, never)
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "TAGSTREAM_TRACES_URL", bad.Variable)
}

// lines collects the lines that a logger writes.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) count(what string) int { return strings.Count(l.text(), what) }

// A server is unavailable, then starts, then restarts. Each change is logged once.
func TestConnectNATS(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t, natstest.Listen())
	s.Shutdown()
	n := mustRead[service.NATS](t, "--nats-url="+s.URL())
	var log lines
	logger := slog.New(slog.NewTextHandler(&log, nil))
	health := obs.NewHealth(quiet(), "nats")
	changes := make(chan error, 1000)
	nc, err := n.Connect(ingest, logger, func(err error) { health.Set("nats", err); changes <- err })
	require.NoError(t, err, "it must wait for the server")
	t.Cleanup(nc.Close)
	for range 3 { // attempts
		require.Error(t, <-changes)
	}
	require.Equal(t, 1, log.count("cannot reach NATS"))
	require.Contains(t, health.NotReady()["nats"], "NATS: ")
	for range 2 {
		s.Restart(t)
		for err := range changes {
			if err == nil {
				break
			}
		}
		require.Empty(t, health.NotReady())
	}
	require.NoError(t, nc.Flush())
	require.Equal(t, 2, log.count("connected to NATS"))
	require.LessOrEqual(t, log.count("level=WARN"), 2)
	require.True(t, strings.HasPrefix(nc.NewInbox(), "_INBOX_ingest."), "permissions need the name")
}

func TestConnectNATSRetriesWithoutRights(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t, natstest.Listen(), natstest.With(func(o *server.Options) { o.Username, o.Password = "u", "p" }))
	n := mustRead[service.NATS](t, "--nats-url="+s.URL())
	changes := make(chan error, 1000)
	nc, err := n.Connect(ingest, quiet(), func(err error) { changes <- err })
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	require.ErrorIs(t, <-changes, nats.ErrAuthorization, "the error must be reported")
	for range 2 { // more attempts follow
		before := nc.Stats().Reconnects
		poll.Until(t, patience, func() (bool, string) {
			return nc.Stats().Reconnects > before, fmt.Sprint(before)
		})
	}
	require.False(t, nc.IsClosed())
}

// An old server is reported at once. One that appears later, or while the program runs, makes the
// program unready.
func TestConnectNATSToOldServer(t *testing.T) {
	t.Parallel()
	const says = "NATS server old is version 2.11.12: Tagstream needs 2.12 or newer"
	url := natstest.Impostor(t, "127.0.0.1:0", "2.11.12")
	_, err := mustRead[service.NATS](t, "--nats-url="+url).Connect(ingest, quiet(), nil)
	var bad *service.ConfigError
	require.ErrorAs(t, err, &bad)
	require.EqualError(t, err, "TAGSTREAM_NATS_URL: "+says)

	s := natstest.Server(t, natstest.Listen())
	changes := make(chan error, 1000)
	nc, err := mustRead[service.NATS](t, "--nats-url="+s.URL()).Connect(ingest, quiet(), func(err error) { changes <- err })
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	require.NoError(t, <-changes)
	s.Shutdown()
	natstest.Impostor(t, strings.TrimPrefix(s.URL(), "nats://"), "2.11.12")
	for err := range changes {
		require.Error(t, err, "an old server must be refused")
		if errors.Is(err, stream.ErrOldServer) {
			require.EqualError(t, err, says)
			break
		}
	}
}

// The server starts with TLS and requires a client certificate.
func TestConnectNATSOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := makeCertificates(t, dir)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "crt"), filepath.Join(dir, "key"))
	require.NoError(t, err)
	s := natstest.Server(t, natstest.Listen(), natstest.With(func(o *server.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: ca, ClientAuth: tls.RequireAndVerifyClientCert}
		o.TLSHandshakeFirst, o.TLSTimeout = true, patience.Seconds()
	}))
	args := []string{"--nats-url=" + s.URL(), "--nats-ca-file=" + filepath.Join(dir, "ca")}
	certificate := []string{"--nats-cert-file=" + filepath.Join(dir, "crt"), "--nats-key-file=" + filepath.Join(dir, "key")}
	connect := func(args []string) (*nats.Conn, chan error) {
		changes := make(chan error, 1000)
		nc, err := mustRead[service.NATS](t, args...).Connect(ingest, quiet(), func(err error) { changes <- err })
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc, changes
	}
	nc, changes := connect(slices.Concat(args, certificate, []string{"--nats-tls-first=on"}))
	require.NoError(t, <-changes)
	require.NoError(t, nc.Flush())
	_, changes = connect(slices.Concat(args, []string{"--nats-tls-first=on"}))
	require.ErrorContains(t, <-changes, "certificate")
}

// makeCertificates writes an authority's certificate (ca), and one signed by it for the loopback
// address (crt, key).
func makeCertificates(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	write := func(name, kind string, der []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write("ca", "CERTIFICATE", der)
	write("crt", "CERTIFICATE", der)
	write("key", "PRIVATE KEY", private)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return pool
}

func TestConnectNATSRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	require.NoError(t, os.WriteFile(garbage, []byte("garbage"), 0o600))
	for _, c := range []struct{ setting, value string }{
		{"NATS_URL", "127.0.0.1:4222:1"},
		{"NATS_URL", "http://user:hush@127.0.0.1"},
		{"NATS_URL", "nats://a,"},
		{"NATS_CREDS_FILE", filepath.Join(dir, "none")},
		{"NATS_NKEY_FILE", filepath.Join(dir, "none")},
		{"NATS_NKEY_FILE", garbage},
		{"NATS_CA_FILE", filepath.Join(dir, "none")},
		{"NATS_CA_FILE", garbage},
		{"NATS_CERT_FILE", filepath.Join(dir, "none")},
		{"NATS_KEY_FILE", filepath.Join(dir, "none")},
		{"NATS_TLS_FIRST", "yes"},
		{"NATS_DOMAIN", "a.b"},
	} {
		n, err := read[service.NATS](service.Ingest, nil, []string{service.Prefix + c.setting + "=" + c.value})
		if err == nil {
			_, err = n.Connect(ingest, quiet(), nil)
		}
		var bad *service.ConfigError
		require.ErrorAs(t, err, &bad, "%s=%s", c.setting, c.value)
		require.Equal(t, service.Prefix+c.setting, bad.Variable)
		require.NotContains(t, err.Error(), "hush")
	}
}
