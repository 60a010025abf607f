package pgserver

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
)

const (
	// Superuser is the name of the superuser role. Its password is stored like the others'.
	Superuser = "postgres"
	// AnyPort, as Config.TCPPort, lets Start choose a free port.
	AnyPort = -1
)

// Config says what Start runs.
type Config struct {
	// Dir holds everything of the server, see the package comment. Start creates it if it is
	// missing. Required; no two servers share one.
	Dir string
	// Binaries is what Find returned. Required.
	Binaries Binaries
	// Database is created, with Owner as its owner, and used in each URL. Empty means the database
	// "postgres", which always exists.
	Database string
	// Owner is one of Roles, or empty for Superuser.
	Owner string
	// Roles are login roles without other rights, created if missing. Lower-case letters, digits
	// and underscores, at most 63 bytes.
	Roles []string
	// Settings are Postgres parameters by name. They extend and override DefaultSettings, and
	// override ALTER SYSTEM.
	Settings map[string]string
	// TCPPort is a port on 127.0.0.1 to listen on beside the socket: AnyPort, or
	// 1..65535. 0 means no TCP.
	TCPPort int
	// Logger logs initialization, an ended orphan and a late shutdown. Required. The server's own
	// lines go to postgres.log.
	Logger *slog.Logger
}

// DefaultSettings returns the settings for one writer and many short reads on a machine shared with
// other programs.
func DefaultSettings() map[string]string {
	return map[string]string{
		"cluster_name":       "tagstream",
		"shared_buffers":     "256MB",
		"max_wal_size":       "2GB", // fewer, larger checkpoints while a rebuild writes
		"checkpoint_timeout": "15min",
		"wal_compression":    "on",
		"random_page_cost":   "1.1", // solid-state disks; the plans are index scans
		"jit":                "off", // costs more than our short queries take
		"timezone":           "UTC",
		"log_timezone":       "UTC",
		"log_checkpoints":    "off",
		"log_line_prefix":    "%m [%p] %q%u@%d ",
	}
}

// namePattern is the form of role and database names: they are file names too, and must not need
// quoting in SQL.
var namePattern = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// validate checks c and makes its directory absolute.
func (c *Config) validate() error {
	if c.Dir == "" || c.Binaries.Dir == "" || c.Logger == nil {
		return errors.New("start Postgres: Dir, Binaries and Logger are required")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	c.Dir = dir
	owned := c.Owner == ""
	for _, role := range c.Roles {
		if !namePattern.MatchString(role) || role == Superuser {
			return fmt.Errorf("start Postgres: role name %q: want lower-case letters, digits and underscores, and not %s", role, Superuser)
		}
		owned = owned || role == c.Owner
	}
	if !owned {
		return fmt.Errorf("start Postgres: owner %q is not one of the roles", c.Owner)
	}
	if c.Database == "" {
		c.Database = "postgres"
	}
	if !namePattern.MatchString(c.Database) {
		return fmt.Errorf("start Postgres: database name %q: want lower-case letters, digits and underscores", c.Database)
	}
	if c.TCPPort < AnyPort || c.TCPPort > 65535 {
		return fmt.Errorf("start Postgres: TCP port %d is not within 1..65535", c.TCPPort)
	}
	return nil
}
