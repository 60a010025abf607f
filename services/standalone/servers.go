package standalone

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/tagstream/tagstream/pkg/service/dbsettings"
)

// servers are the URLs, with passwords, of the servers that the running program started. They are
// in a file of the data directory that only its owner can read, so that operators' commands find
// them. The file of a killed run stays, and names servers that are gone.
type servers struct {
	NATS    string `json:"nats,omitempty"`
	Owner   string `json:"owner,omitempty"`
	Indexer string `json:"indexer,omitempty"`
	API     string `json:"api,omitempty"`
}

func serversFile(dir string) string { return filepath.Join(dir, "servers.json") }

func (s servers) write(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write the addresses of the servers: %w", err)
	}
	next := serversFile(dir) + ".new" // whole or not at all
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write the addresses of the servers: %w", err)
	}
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("write the addresses of the servers: %w", err)
	}
	if err := os.Rename(next, serversFile(dir)); err != nil {
		return fmt.Errorf("write the addresses of the servers: %w", err)
	}
	return nil
}

func (servers) remove(dir string) error {
	if err := os.Remove(serversFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the addresses of the servers: %w", err)
	}
	return nil
}

// Servers finds the servers of the program that runs on this data directory. It is a service.Local.
type Servers string

// dialTimeout is how long the embedded NATS server may take to answer.
const dialTimeout = 2 * time.Second

func (dir Servers) read() (s servers, err error) {
	data, err := os.ReadFile(serversFile(string(dir)))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, fmt.Errorf("no bin/tagstream runs on the data directory %s (TAGSTREAM_DATA_DIR), and no setting names another server", dir)
	case err != nil:
		return s, fmt.Errorf("read the addresses of bin/tagstream's servers: %w", err)
	}
	return s, nil
}

// NATS returns the URL of the embedded NATS server.
func (dir Servers) NATS() (string, error) {
	s, err := dir.read()
	if err != nil {
		return "", err
	}
	if s.NATS == "" {
		return "", fmt.Errorf("the bin/tagstream that runs on %s uses another NATS server: set TAGSTREAM_NATS_URL as it does", dir)
	}
	u, err := url.Parse(s.NATS)
	if err != nil {
		return "", fmt.Errorf("%s is damaged", serversFile(string(dir))) // it may hold the secret
	}
	conn, err := net.DialTimeout("tcp", u.Host, dialTimeout)
	if err != nil {
		return "", fmt.Errorf("the bin/tagstream of %s does not answer; was it killed? %w", dir, err)
	}
	return s.NATS, conn.Close()
}

// Database returns the URL of the private Postgres for a role.
func (dir Servers) Database(role string) (string, error) {
	s, err := dir.read()
	if err != nil {
		return "", err
	}
	u := map[string]string{dbsettings.Owner: s.Owner, dbsettings.Indexer: s.Indexer, dbsettings.API: s.API}[role]
	if u == "" {
		return "", fmt.Errorf("the bin/tagstream that runs on %s uses another Postgres: set TAGSTREAM_DATABASE_URL as it does", dir)
	}
	return u, nil
}
