package bench

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/tagstream/tagstream/test/report"
)

// inspectPostgres adds what the server says of itself.
func (s *installation) inspectPostgres(ctx context.Context, m *report.Machine) error {
	return s.sql(ctx, func(conn *pgx.Conn) error { return m.InspectPostgres(ctx, conn) })
}
