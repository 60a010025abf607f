// Package dbsettings reads where the index is from a program's settings.
package dbsettings

import (
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
)

// maxConns is more than any server takes.
const maxConns = 10_000

// Options reads the options from a program's settings. Without a URL, which
// not every program needs, they are the zero value; bad ones are reported by
// v.Err.
func Options(v *service.Values, program string) store.Options {
	o := store.Options{URL: v.String("DATABASE_URL"), Password: v.Secret("DATABASE_PASSWORD_FILE"), Program: program}
	if v.IsSet("DATABASE_MAX_CONNS") {
		o.MaxConns = v.Int("DATABASE_MAX_CONNS", 1, maxConns)
	}
	if o.URL == "" {
		return store.Options{}
	}
	if err := o.Check(); err != nil {
		v.Fail("DATABASE_URL", err)
	}
	return o
}
