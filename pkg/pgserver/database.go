package pgserver

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// closeLimit bounds the polite end of one connection.
const closeLimit = 5 * time.Second

// prepareDatabase creates the roles and the database where they are missing and
// sets every password. A crash half-way is completed by the next start.
func (s *Server) prepareDatabase(ctx context.Context) error {
	config, err := pgx.ParseConfig(s.DriverURL(Superuser))
	if err != nil {
		return fmt.Errorf("connect as %s: %w", Superuser, err)
	}
	config.Database = "postgres" // the other may not exist yet
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect as %s: %w", Superuser, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		conn.Close(ctx) // nothing is pending on it
	}()
	for _, role := range s.cfg.Roles {
		if err := s.ensureRole(ctx, conn, role); err != nil {
			return fmt.Errorf("prepare role %s: %w", role, err)
		}
	}
	if err := s.ensureDatabase(ctx, conn); err != nil {
		return fmt.Errorf("prepare database %s: %w", s.cfg.Database, err)
	}
	return nil
}

// ensureRole needs no quoting: names match namePattern, passwords are hex.
func (s *Server) ensureRole(ctx context.Context, conn *pgx.Conn, role string) error {
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists)
	if err != nil {
		return err
	}
	verb := "CREATE"
	if exists {
		verb = "ALTER"
	}
	_, err = conn.Exec(ctx, fmt.Sprintf("%s ROLE %s LOGIN PASSWORD '%s'", verb, pgx.Identifier{role}.Sanitize(), s.passwords[role]))
	return err
}

func (s *Server) ensureDatabase(ctx context.Context, conn *pgx.Conn) error {
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", s.cfg.Database).Scan(&exists)
	if err != nil || exists {
		return err
	}
	owner := s.cfg.Owner
	if owner == "" {
		owner = Superuser
	}
	_, err = conn.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s OWNER %s TEMPLATE template0",
		pgx.Identifier{s.cfg.Database}.Sanitize(), pgx.Identifier{owner}.Sanitize()))
	return err
}
