// Package pgtest gives tests a real Postgres. For tests only.
//
// Database returns a fresh database on a server that all tests of one test binary share; Server
// starts a separate server for a test, to stop, kill and pause. A test binary that uses the package
// has
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// The shared server is, in this order: the one that TEST_DATABASE_URL names (a superuser); a
// container, if a Docker engine answers and already has the image (postgres:17-alpine, or
// TEST_POSTGRES_IMAGE); a private cluster from binaries on this machine. The choice is printed
// once. Our own servers do not sync to disk, and die with the test binary, even if it panics or is
// killed.
//
// If none of these is available, a test is skipped with a line that says why; with CI=true it
// fails.
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// setupLimit bounds making a server, a database or a role.
	setupLimit = 5 * time.Minute
	// cleanupLimit bounds removing one.
	cleanupLimit = 30 * time.Second
	// adminConns is how many databases are created and dropped at the same time.
	adminConns = 4
	// sharedConns is how many connections the shared server accepts: many tests run at once, each
	// with its own pool.
	sharedConns = 400
)

// shared is the one server of this test binary. It is a package variable
// because tests share nothing else.
var shared sharedServer

type sharedServer struct {
	once  sync.Once
	err   error
	admin *pgxpool.Pool // as a superuser, to the database postgres
	base  *url.URL      // the superuser's connection string
	stop  func(context.Context) error
}

// Main runs the tests, ends the shared server and exits.
func Main(m *testing.M) {
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func (s *sharedServer) open() error {
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setupLimit)
		defer cancel()
		start := time.Now()
		source, err := openSource(ctx)
		if err != nil {
			s.err = err
			return
		}
		s.stop = source.stop
		s.err = s.connect(ctx, source.url)
		fmt.Printf("pgtest: using %s (ready in %v)\n", source.name, time.Since(start).Round(time.Millisecond))
	})
	return s.err
}

func (s *sharedServer) connect(ctx context.Context, connString string) error {
	base, err := url.Parse(connString)
	if err != nil {
		return fmt.Errorf("parse the server's URL: %w", err)
	}
	s.base = base
	config, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return fmt.Errorf("parse the server's URL: %w", err)
	}
	config.MaxConns = adminConns
	s.admin, err = pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to the test server: %w", err)
	}
	if err := s.admin.Ping(ctx); err != nil {
		return fmt.Errorf("connect to the test server: %w", err)
	}
	return nil
}

func (s *sharedServer) close() error {
	if s.admin != nil {
		s.admin.Close()
	}
	if s.stop == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	return s.stop(ctx)
}

// with gives the server's connection string for another database, and for
// another user unless that is nil.
func (s *sharedServer) with(database string, user *url.Userinfo) string {
	u := *s.base
	u.Path = "/" + database
	if user != nil {
		u.User = user
	}
	return u.String()
}

// DB is the database of one test. It is dropped when the test ends, even if there are connections.
type DB struct {
	// URL connects as the superuser that owns the database.
	URL string
	// Name is the database's name, unlike every other.
	Name string

	mu    sync.Mutex
	roles []string // guarded by mu; dropped after the database
}

// Role is a login role of one test.
type Role struct {
	// URL connects to the test's database as this role.
	URL string
	// Name is the role's name in SQL. It needs no quotes.
	Name string
}

// Database makes an empty database for the test.
func Database(t testing.TB) *DB {
	t.Helper()
	if err := shared.open(); err != nil {
		unavailable(t, err)
	}
	db := &DB{Name: "test_" + random()}
	db.URL = shared.with(db.Name, nil)
	ctx, cancel := context.WithTimeout(t.Context(), setupLimit)
	defer cancel()
	_, err := shared.admin.Exec(ctx, "CREATE DATABASE "+db.Name+" TEMPLATE template0")
	if err != nil {
		t.Fatalf("pgtest: create a database: %v", err)
	}
	t.Cleanup(func() { db.drop(t) })
	return db
}

func (db *DB) drop(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	statements := []string{"DROP DATABASE " + db.Name + " WITH (FORCE)"}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, role := range db.roles {
		statements = append(statements, "DROP ROLE "+role)
	}
	for _, statement := range statements {
		if _, err := shared.admin.Exec(ctx, statement); err != nil {
			t.Errorf("pgtest: %s: %v", statement, err)
		}
	}
}

// Pool connects as the superuser. The pool is closed when the test ends.
func (db *DB) Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return Pool(t, db.URL)
}

// Pool connects to any URL of this package. The pool is closed when the test
// ends.
func Pool(t testing.TB, connString string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), connString)
	if err != nil {
		t.Fatalf("pgtest: connect: %v", err)
	}
	t.Cleanup(pool.Close)
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatalf("pgtest: connect: %v", err)
	}
	return pool
}

// Role creates a login role for the test. Its name begins with name and is unique, as roles belong
// to the whole server. Attributes are those of CREATE ROLE, such as "CREATEROLE" or "IN ROLE x". It
// is dropped after the test's database.
func (db *DB) Role(t testing.TB, name string, attributes ...string) Role {
	t.Helper()
	role := name + "_" + random()
	password := random()
	statement := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", role, password)
	for _, attribute := range attributes {
		statement += " " + attribute
	}
	ctx, cancel := context.WithTimeout(t.Context(), setupLimit)
	defer cancel()
	if _, err := shared.admin.Exec(ctx, statement); err != nil {
		t.Fatalf("pgtest: create role %s: %v", role, err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.roles = append(db.roles, role)
	return Role{Name: role, URL: shared.with(db.Name, url.UserPassword(role, password))}
}

// SharedRole creates a login role of exactly this name, once for all tests, for code that contains
// the name. It is never dropped; what it owns in the test's database is dropped with that.
func (db *DB) SharedRole(t testing.TB, name string, attributes ...string) Role {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setupLimit)
	defer cancel()
	// The password is known to every test binary that uses the same server.
	const password = "shared"
	err := pgx.BeginFunc(ctx, shared.admin, func(tx pgx.Tx) error {
		const lockKey = 0x7467_726f_6c65 // any unused number
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockKey); err != nil {
			return err
		}
		var exists bool
		err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).Scan(&exists)
		if err != nil || exists {
			return err
		}
		statement := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", pgx.Identifier{name}.Sanitize(), password)
		for _, attribute := range attributes {
			statement += " " + attribute
		}
		_, err = tx.Exec(ctx, statement)
		return err
	})
	if err != nil {
		t.Fatalf("pgtest: create role %s: %v", name, err)
	}
	return Role{Name: name, URL: shared.with(db.Name, url.UserPassword(name, password))}
}

// unavailable skips the test if the machine has no Postgres and tests may be skipped. A Postgres
// that exists and fails is a failure of the test.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" || !errors.Is(err, errNoSource) {
		t.Fatalf("pgtest: no Postgres for this test: %v", err)
	}
	t.Skipf("pgtest: SKIPPED, no Postgres for this test: %v", err)
}

// random gives 16 letters and digits that are a name in SQL after a letter.
func random() string {
	bytes := make([]byte, 8)
	rand.Read(bytes) // never fails, says its documentation
	return hex.EncodeToString(bytes)
}
