package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/tagstream/tagstream/pkg/pgserver"
	"github.com/tagstream/tagstream/pkg/store"
)

// The login roles of the private database, separated as in a deployment of separate services.
const (
	ownerRole   = "tagstream_owner"
	indexerRole = "tagstream_indexer"
	apiRole     = "tagstream_api"
	database    = "tagstream"
)

// databases are the connection settings of the parts.
type databases struct {
	owner, indexer, api store.Options
}

// openPostgres starts a private Postgres under dir and creates its roles.
func openPostgres(ctx context.Context, dir string, logger *slog.Logger) (*pgserver.Server, databases, error) {
	logger = logger.With("service", "postgres")
	dir = filepath.Join(dir, "postgres")
	binaries, err := pgserver.Find(ctx, dir)
	if err != nil {
		return nil, databases{}, err
	}
	pg, err := pgserver.Start(ctx, pgserver.Config{
		Dir: dir, Binaries: binaries, Database: database, Owner: ownerRole,
		Roles: []string{ownerRole, indexerRole, apiRole}, Logger: logger,
	})
	if err != nil {
		return nil, databases{}, fmt.Errorf("start the private Postgres: %w", err)
	}
	db := databases{
		owner:   store.Options{URL: pg.DriverURL(ownerRole), Program: "owner"},
		indexer: store.Options{URL: pg.DriverURL(indexerRole), Program: "indexer"},
		api:     store.Options{URL: pg.DriverURL(apiRole), Program: "api"},
	}
	err = store.CreateRoles(ctx, store.Options{URL: pg.DriverURL(pgserver.Superuser)}, indexerRole, apiRole)
	if err == nil {
		err = store.Migrate(ctx, db.owner, logger)
	}
	if err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), postgresStop)
		defer cancel()
		_ = pg.Stop(stop) // the first error says what is wrong
		return nil, databases{}, err
	}
	return pg, db, nil
}
