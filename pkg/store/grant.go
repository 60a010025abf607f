package store

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// grant gives existing group roles their rights on a schema: the writer changes rows, the reader
// selects. Neither can create anything.
func grant(ctx context.Context, conn *pgx.Conn, schema string) error {
	s := pgx.Identifier{schema}.Sanitize()
	for role, rights := range map[string][]string{
		writerRole: {
			"GRANT USAGE ON SCHEMA " + s + " TO " + writerRole,
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + s + " TO " + writerRole,
			"GRANT USAGE ON ALL SEQUENCES IN SCHEMA " + s + " TO " + writerRole,
			// Only the owner sets the schema's version.
			"REVOKE INSERT, UPDATE, DELETE ON " + s + "." + migrationsTable + " FROM " + writerRole,
		},
		readerRole: {
			"GRANT USAGE ON SCHEMA " + s + " TO " + readerRole,
			"GRANT SELECT ON ALL TABLES IN SCHEMA " + s + " TO " + readerRole,
		},
	} {
		var exists bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists); err != nil {
			return fmt.Errorf("look up role %s: %w", role, err)
		}
		if !exists {
			continue
		}
		for _, stmt := range rights {
			if _, err := conn.Exec(ctx, stmt); err != nil {
				return fmt.Errorf("give role %s its rights on schema %s: %w", role, schema, err)
			}
		}
	}
	return nil
}

// CreateRoles creates missing group roles of writers and readers, and makes the login roles their
// members. It needs a superuser or a role that may create roles; deployments do the same in
// deploy/postgres/roles.sql.
func CreateRoles(ctx context.Context, o Options, writer, reader string) error {
	return pg.Do(ctx, o, pg.Owning, func(conn *pgx.Conn) error {
		if err := lock(ctx, conn, migrationLock, slog.New(slog.DiscardHandler)); err != nil {
			return err
		}
		// The lock would also end with the connection, but only when the server notices, and the
		// next migration would wait for that.
		defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLock) }()
		for group, member := range map[string]string{writerRole: writer, readerRole: reader} {
			var exists bool
			if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", group).Scan(&exists); err != nil {
				return fmt.Errorf("look up role %s: %w", group, err)
			}
			if !exists {
				if _, err := conn.Exec(ctx, "CREATE ROLE "+group+" NOLOGIN"); err != nil {
					return fmt.Errorf("create role %s: %w", group, err)
				}
			}
			if _, err := conn.Exec(ctx, "GRANT "+group+" TO "+pgx.Identifier{member}.Sanitize()); err != nil {
				return fmt.Errorf("make %s a member of %s: %w", member, group, err)
			}
		}
		return nil
	})
}
