package pgserver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEnvironmentIsForOthers starts and queries a server under a libpq environment for another
// server, in which every variable would prevent or change a connection.
//
// Invariant: libpq's environment does not affect the private Postgres.
func TestEnvironmentIsForOthers(t *testing.T) {
	dir, binaries := testDir(t)
	for name, value := range map[string]string{
		"PGSERVICE": "elsewhere", "PGSERVICEFILE": "/nowhere/pg_service.conf",
		"PGHOST": "elsewhere.example", "PGPORT": "1", "PGUSER": "somebody", "PGDATABASE": "other", "PGPASSWORD": "hush", "PGPASSFILE": "/nowhere/pgpass",
		"PGOPTIONS": "-c no_such_setting=1", "PGTZ": "Nowhere/At_All", "PGAPPNAME": "psql", "PGCONNECT_TIMEOUT": "soon",
		"PGTARGETSESSIONATTRS": "standby", "PGREQUIREAUTH": "none", "PGCHANNELBINDING": "require",
		"PGMINPROTOCOLVERSION": "3.2", "PGMAXPROTOCOLVERSION": "3.2",
		"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere/root.crt", "PGSSLCERT": "/nowhere/crt", "PGSSLKEY": "/nowhere/key",
		"PGSSLCERTMODE": "require", "PGSSLNEGOTIATION": "direct", "PGSSLSNI": "0", "PGSSLPASSWORD": "hush",
	} {
		t.Setenv(name, value)
	}
	server := start(t, testConfig(dir, binaries))
	require.Equal(t, "owner", query(t, server.DriverURL("owner"), "SELECT current_user"))
	require.Equal(t, "tagstream", query(t, server.DriverURL("owner"), "SELECT current_database()"))
}
