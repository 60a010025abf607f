package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/tagstream/tagstream/pkg/dirlock"
)

const (
	// startLimit bounds one start, crash recovery and initdb included.
	startLimit = 10 * time.Minute
	// dialLimit bounds one attempt to connect.
	dialLimit = 10 * time.Second
	// quickLimit bounds the wait for an immediate shutdown before SIGKILL.
	quickLimit = 10 * time.Second
	// socketPort names the socket if the server has no TCP port.
	socketPort = 5432
	// firstPort and lastPort bound AnyPort. They lie below the ports that systems use for outgoing
	// connections, so that none takes the port while the server restarts.
	firstPort, lastPort = 15000, 32000
	portAttempts        = 10
)

// Server is a running Postgres. Its methods are safe for concurrent use.
type Server struct {
	cfg        Config
	account    account
	clusterDir string
	log        *slog.Logger
	passwords  map[string]string // by role; not changed after Start
	lock       *flock.Flock
	socketDir  string
	port       int
	process    *process
	logFrom    int64 // where this run's part of postgres.log begins

	stopping chan struct{} // closed by the first Stop
	stopOnce sync.Once
	stopErr  error
}

// Start runs the cluster in cfg.Dir and returns once it accepts connections and the roles and the
// database exist. It creates the cluster the first time, and ends a server that a killed process
// left behind. The server runs until Stop; ctx bounds only the start.
//
// It returns a *dirlock.HeldError if another Server has the directory and a *VersionError if the
// binaries do not match the data.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start Postgres: make its directory: %w", err)
	}
	lock, err := dirlock.Acquire(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	s := newServer(cfg, lock)
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start Postgres in %s: %w", cfg.Dir, err), s.release())
	}
	return s, nil
}

// Remove deletes a directory of Start and all data in it, after ending a server that a killed
// process left behind. It returns a *dirlock.HeldError if a Server has the directory. A missing
// directory is not an error.
func Remove(ctx context.Context, dir string, logger *slog.Logger) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("remove a Postgres: %w", err)
	}
	lock, err := dirlock.Acquire(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove a Postgres: %w", err)
	}
	s := newServer(Config{Dir: dir, Logger: logger}, lock)
	if err := s.stopOrphan(ctx); err != nil {
		return errors.Join(fmt.Errorf("remove the Postgres in %s: %w", dir, err), s.release())
	}
	// The lock's file goes with the rest, while the lock is held.
	return errors.Join(removeSocketDir(s.socketRecord()), os.RemoveAll(dir), lock.Close())
}

func newServer(cfg Config, lock *flock.Flock) *Server {
	return &Server{
		cfg:        cfg,
		clusterDir: filepath.Join(cfg.Dir, clusterName),
		log:        cfg.Logger,
		lock:       lock,
		stopping:   make(chan struct{}),
	}
}

func (s *Server) start(ctx context.Context) error {
	var err error
	if s.account, err = chooseAccount(s.clusterDir); err != nil {
		return err
	}
	if err := s.loadPasswords(); err != nil {
		return err
	}
	if err := s.stopOrphan(ctx); err != nil {
		return err
	}
	if err := s.ensureCluster(ctx); err != nil {
		return err
	}
	if s.socketDir, err = makeSocketDir(s.account, s.socketRecord()); err != nil {
		return err
	}
	if s.port, err = s.choosePort(); err != nil {
		return err
	}
	if err := s.launch(ctx); err != nil {
		return err
	}
	err = os.WriteFile(s.serviceFile(), []byte("["+serviceName+"]\n"), 0o600)
	if err == nil {
		err = s.prepareDatabase(ctx)
	}
	if err != nil {
		s.end(ctx, true)
	}
	return err
}

// loadPasswords reads or makes the password of every role.
func (s *Server) loadPasswords() error {
	dir := filepath.Join(s.cfg.Dir, "secrets")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := clusterMajor(s.clusterDir); err == nil { // a new password would not open an old cluster
		if _, err := os.Stat(filepath.Join(dir, Superuser)); err != nil {
			return fmt.Errorf("the cluster exists but its password file is missing: restore the file, or move %s away and rebuild the index from the stream: %w", s.clusterDir, err)
		}
	}
	s.passwords = make(map[string]string)
	for _, role := range append([]string{Superuser}, s.cfg.Roles...) {
		var err error
		if s.passwords[role], err = secret(dir, role); err != nil {
			return err
		}
	}
	return nil
}

// choosePort returns the port for the socket's name and, if requested, for TCP.
func (s *Server) choosePort() (int, error) {
	switch s.cfg.TCPPort {
	case 0:
		return socketPort, nil
	case AnyPort:
		for range portAttempts {
			port := firstPort + rand.IntN(lastPort-firstPort)
			if listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
				return port, listener.Close()
			}
		}
		return 0, fmt.Errorf("find a free port: none of %d ports tried between %d and %d is free", portAttempts, firstPort, lastPort)
	}
	return s.cfg.TCPPort, nil
}

// launch starts the server and waits until it accepts connections.
func (s *Server) launch(ctx context.Context) error {
	// The server outlives ctx: Stop ends it.
	cmd := s.account.command(context.WithoutCancel(ctx), filepath.Join(s.cfg.Binaries.Dir, "postgres"))
	dirName, dirFile, err := s.account.pass(cmd, s.clusterDir)
	if err != nil {
		return err
	}
	defer dirFile.Close() // nil is harmless
	cmd.Args = append(cmd.Args, "-D", dirName)
	for _, setting := range s.settings() {
		cmd.Args = append(cmd.Args, "-c", setting)
	}
	logFile, err := s.openLog()
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if s.process, err = startProcess(cmd); err != nil {
		return fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	if err := s.awaitReady(ctx); err != nil {
		s.end(ctx, true)
		return err
	}
	return nil
}

// settings gives every parameter as name=value, sorted.
func (s *Server) settings() []string {
	all := DefaultSettings()
	maps.Copy(all, s.cfg.Settings)
	all["listen_addresses"] = ""
	if s.cfg.TCPPort != 0 {
		all["listen_addresses"] = "127.0.0.1"
	}
	all["port"] = strconv.Itoa(s.port)
	all["unix_socket_directories"] = s.socketDir
	all[dirSetting] = s.clusterDir
	var list []string
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// awaitReady returns when the server's own status file says that it accepts connections.
func (s *Server) awaitReady(ctx context.Context) error {
	path := filepath.Join(s.clusterDir, "postmaster.pid")
	pid := strconv.Itoa(s.PID())
	err := poll(ctx, func() (bool, error) {
		select {
		case <-s.process.done:
			return false, s.endedError()
		default:
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return false, nil // not written yet; the process's end is seen above
		}
		lines := strings.Split(string(text), "\n")
		const statusLine = 7 // the eighth, says Postgres's pidfile.h
		return strings.TrimSpace(lines[0]) == pid && len(lines) > statusLine &&
			strings.TrimSpace(lines[statusLine]) == "ready", nil
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("wait until it takes connections: %w: %s", err, s.logTail())
	}
	return err
}

func (s *Server) endedError() error {
	status := "with status 0"
	if s.process.err != nil {
		status = s.process.err.Error()
	}
	return fmt.Errorf("the database server ended (%s): %s", status, s.logTail())
}

// Done is closed when the server has ended, by Stop or for another reason.
func (s *Server) Done() <-chan struct{} { return s.process.done }

// Err returns why the server ended without Stop. It is nil before Done is closed, and after Stop.
func (s *Server) Err() error {
	select {
	case <-s.stopping:
		return nil
	default:
	}
	select {
	case <-s.process.done:
		return s.endedError()
	default:
		return nil
	}
}

// PID returns the process id of the server's first process.
func (s *Server) PID() int { return s.process.cmd.Process.Pid }

// Port returns the TCP port on 127.0.0.1, 0 if there is none.
func (s *Server) Port() int {
	if s.cfg.TCPPort == 0 {
		return 0
	}
	return s.port
}

// URL returns the connection string by which role, one of Config.Roles or Superuser, reaches the
// database: by TCP if the server has a port, else by the socket. For any other role it has no
// password, so connecting fails.
func (s *Server) URL(role string) string {
	if port := s.Port(); port != 0 {
		return s.connString(role, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), url.Values{"sslmode": {"disable"}})
	}
	return s.connString(role, "", url.Values{"host": {s.socketDir}, "port": {strconv.Itoa(s.port)}})
}

// DriverURL is the connection string for pgx, through the socket. pgx takes whatever a connection
// string leaves out from libpq's environment (PGSERVICE, PGOPTIONS, PGREQUIREAUTH and so on), which
// is meant for other servers, so this one leaves nothing out.
func (s *Server) DriverURL(role string) string {
	query := url.Values{"host": {s.socketDir}, "port": {strconv.Itoa(s.port)}}
	for name, value := range map[string]string{
		// A service cannot be left out if the environment names one: ours is empty.
		"service": serviceName, "servicefile": s.serviceFile(),
		"passfile": "", "options": "", "timezone": "UTC", "connect_timeout": strconv.Itoa(int(dialLimit.Seconds())),
		"sslmode": "disable", "sslcertmode": "disable", "sslcert": "", "sslkey": "", "sslrootcert": "", "sslnegotiation": "", "sslsni": "", "sslpassword": "",
		"target_session_attrs": "any", "channel_binding": "disable", "require_auth": "",
		"min_protocol_version": "3.0", "max_protocol_version": "3.0",
	} {
		query.Set(name, value)
	}
	return s.connString(role, "", query)
}

// serviceName is the one section of the service file.
const serviceName = "tagstream"

func (s *Server) serviceFile() string { return filepath.Join(s.cfg.Dir, "service.conf") }

func (s *Server) connString(role, host string, query url.Values) string {
	u := url.URL{
		Scheme: "postgres",
		User:   url.UserPassword(role, s.passwords[role]),
		Host:   host,
		Path:   "/" + s.cfg.Database,
		// To Postgres's clients a + is a +, never a space.
		RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20"),
	}
	return u.String()
}

// Stop ends the server: it closes every connection, writes everything to disk and returns when the
// process is gone. If ctx ends first, the server is stopped immediately, and the next start
// recovers from the log, which loses nothing that was committed; Stop then returns ctx's error.
// Stopping twice, or after the server ended, is harmless.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		close(s.stopping)
		s.stopErr = errors.Join(s.end(ctx, false), s.release())
	})
	return s.stopErr
}

// end stops the process, fast or immediately, and waits until it is gone.
func (s *Server) end(ctx context.Context, atOnce bool) error {
	if !atOnce {
		s.process.signal(syscall.SIGINT)
		select {
		case <-s.process.done:
			return nil
		case <-ctx.Done():
		}
	}
	s.process.signal(syscall.SIGQUIT)
	timer := time.NewTimer(quickLimit)
	defer timer.Stop()
	select {
	case <-s.process.done:
	case <-timer.C:
		s.process.signal(syscall.SIGKILL)
		<-s.process.done
	}
	if atOnce {
		return nil
	}
	s.log.Warn("the database server was stopped immediately", "cause", context.Cause(ctx))
	return fmt.Errorf("stop Postgres: %w", context.Cause(ctx))
}

// release releases everything that the Server holds besides its process.
func (s *Server) release() error {
	err := removeSocketDir(s.socketRecord())
	return errors.Join(err, s.lock.Close())
}

func (s *Server) socketRecord() string { return filepath.Join(s.cfg.Dir, "socket.path") }
