package store

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/golang-migrate/migrate/v4/database"
	"github.com/jackc/pgx/v5"
)

// migrationLock is the key of the database's advisory lock for everything that creates objects:
// schemas, migrations, rights.
const migrationLock = 0x7461_6773_7472

const (
	// migrationLockWait bounds the wait for it. A longer wait means that a migration takes long, or
	// that one left its lock to a pooler.
	migrationLockWait  = 15 * time.Second
	migrationLockPause = 200 * time.Millisecond
)

// lock takes an advisory lock for the life of the connection. The error names the holder.
func lock(ctx context.Context, conn *pgx.Conn, key int64, logger *slog.Logger) error {
	wait, cancel := context.WithTimeout(ctx, migrationLockWait)
	defer cancel()
	for said := false; ; {
		var taken bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", key).Scan(&taken); err != nil {
			return fmt.Errorf("take the lock of migrations: %w", err)
		}
		if taken {
			return nil
		}
		holder, err := lockHolder(ctx, conn, key)
		if err != nil {
			return fmt.Errorf("find the holder of the migration lock: %w", err)
		}
		if !said {
			logger.Info("waiting for the migration lock", "holder", holder)
			said = true
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("take the lock of migrations: %w", context.Cause(ctx))
			}
			return fmt.Errorf("the migration lock is held by %s: wait until it ends; if no migration runs, a pooler keeps the lock of a finished one, and pg_terminate_backend with that process number releases it", holder)
		case <-time.After(migrationLockPause):
		}
	}
}

// lockHolder describes the holder of an advisory lock, as far as this role may see it.
func lockHolder(ctx context.Context, conn *pgx.Conn, key int64) (string, error) {
	rows, _ := conn.Query(ctx, `
		SELECT l.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(host(a.client_addr), ''),
		       coalesce(to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS TZ'), '')
		  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
		 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
		   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		   AND l.classid::bigint = ($1::bigint >> 32) & 4294967295 AND l.objid::bigint = $1::bigint & 4294967295`, key)
	var pid int
	var role, program, address, since string
	var holders []string
	if _, err := pgx.ForEachRow(rows, []any{&pid, &role, &program, &address, &since}, func() error {
		s := "process " + strconv.Itoa(pid)
		for _, part := range []struct{ what, value string }{{" of role ", role}, {", program ", program}, {", from ", address}, {", since ", since}} {
			if part.value != "" {
				s += part.what + part.value
			}
		}
		holders = append(holders, s)
		return nil
	}); err != nil {
		return "", err
	}
	if len(holders) == 0 {
		return "a process that has since ended", nil
	}
	return strings.Join(holders, " and "), nil
}

// awaitLibrary waits until the lock of the migration library is free, for which the library would
// wait indefinitely.
func awaitLibrary(ctx context.Context, conn *pgx.Conn, schema string, logger *slog.Logger) error {
	id, err := database.GenerateAdvisoryLockId(conn.Config().Database, schema, migrationsTable)
	if err != nil {
		return fmt.Errorf("name the lock of the library: %w", err)
	}
	key, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return fmt.Errorf("name the lock of the library: %w", err)
	}
	if err := lock(ctx, conn, key, logger); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", key); err != nil {
		return fmt.Errorf("give back the lock of the library: %w", err)
	}
	return nil
}
