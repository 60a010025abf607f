// Package dbsettings turns a program's settings into the options that open the index.
package dbsettings

import (
	"errors"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
)

// The roles that programs and verbs have in the database.
const (
	Owner   = "owner"
	Indexer = "indexer"
	API     = "api"
)

// Options returns the options for opening the index with a role: the index that the settings name,
// or else that of the all-in-one program that p finds. The error is a *service.ConfigError if the
// settings are wrong.
func Options(p *service.Process, d service.Database, role string) (store.Options, error) {
	o := store.Options{URL: d.URL, Password: d.Password, MaxConns: d.MaxConns, Program: p.Program}
	switch {
	case o.URL == "" && p.Local != nil:
		var err error
		if o.URL, err = p.Local.Database(role); err != nil {
			return store.Options{}, err
		}
	case o.URL == "":
		return o, service.Bad("DATABASE_URL", errors.New("must be set: where the index is, such as postgres://tagstream_"+role+"@db.example/tagstream"))
	}
	return o, service.Bad("DATABASE_URL", o.Check())
}
