package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"
)

type options struct {
	dir                       string
	programUser, postgresUser int
	grafanaUser               int
}

// Modes of the files. The folder is closed to everyone else on the host; a
// container sees only the files that are mounted into it.
const (
	modeFolder = 0o700
	modePublic = 0o444
	modeOwner  = 0o400
	modeBoth   = 0o440
)

// secretBytes is the strength of passwords and signing keys.
const secretBytes = 32

// natsUsers have an nkey each; deploy/nats/users.conf says what each may do.
var natsUsers = []string{"ingest", "indexer", "operator"}

// roles log in with a password each; deploy/postgres/roles.sql says what each
// may do. Those of programs are read by the program and by Postgres.
var roles = []string{"owner", "indexer", "api", "replicator", "metrics"}

// maker writes the files that are missing.
type maker struct {
	options
	made []string
}

// run makes what is missing and returns the names of what it made.
func run(o options) ([]string, error) {
	m := &maker{options: o}
	if err := os.MkdirAll(o.dir, modeFolder); err != nil {
		return nil, err
	}
	steps := []func() error{m.certificates, m.nkeys, m.passwords, m.grafanaPassword, m.cursorKeys}
	for _, step := range steps {
		if err := step(); err != nil {
			return m.made, err
		}
	}
	return m.made, nil
}

// missing reports which of the files are not there: all of them or none,
// since they belong together.
func (m *maker) missing(names ...string) (bool, error) {
	there := 0
	for _, name := range names {
		switch _, err := os.Stat(filepath.Join(m.dir, name)); {
		case err == nil:
			there++
		case !errors.Is(err, os.ErrNotExist):
			return false, err
		}
	}
	if there != 0 && there != len(names) {
		return false, fmt.Errorf("only some of %s are there: restore the others or delete these", strings.Join(names, ", "))
	}
	return there == 0, nil
}

// put writes a file whole or not at all. The owner and group are as chown has
// them; -1 leaves them.
func (m *maker) put(name string, mode os.FileMode, uid, gid int, content []byte) error {
	f, err := os.CreateTemp(m.dir, ".making-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil && m.programUser >= 0 {
		err = f.Chown(uid, gid)
	}
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(m.dir, name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	m.made = append(m.made, name)
	return nil
}

func (m *maker) nkeys() error {
	var public strings.Builder
	public.WriteString("# Public keys of the NATS users, for users.conf. Made together with the .nk files.\n")
	names := []string{"nats_users.conf"}
	for _, user := range natsUsers {
		names = append(names, "nats_"+user+".nk")
	}
	if missing, err := m.missing(names...); err != nil || !missing {
		return err
	}
	for i, user := range natsUsers {
		pair, err := nkeys.CreateUser()
		if err != nil {
			return fmt.Errorf("make the nkey of %s: %w", user, err)
		}
		seed, err := pair.Seed()
		if err != nil {
			return fmt.Errorf("make the nkey of %s: %w", user, err)
		}
		key, err := pair.PublicKey()
		if err != nil {
			return fmt.Errorf("make the nkey of %s: %w", user, err)
		}
		fmt.Fprintf(&public, "%s_KEY: %q\n", strings.ToUpper(user), key)
		if err := m.put(names[i+1], modeOwner, m.programUser, m.programUser, append(seed, '\n')); err != nil {
			return err
		}
	}
	return m.put(names[0], modePublic, m.programUser, m.programUser, []byte(public.String()))
}

func (m *maker) passwords() error {
	for _, role := range roles {
		name := "postgres_" + role + ".password"
		missing, err := m.missing(name)
		if err != nil {
			return err
		}
		if !missing {
			continue
		}
		// No newline: what is put into a Secret of Kubernetes is used byte for byte.
		if err := m.put(name, modeBoth, m.programUser, m.postgresUser, []byte(random())); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) grafanaPassword() error {
	const name = "grafana_admin.password"
	missing, err := m.missing(name)
	if err != nil || !missing {
		return err
	}
	// No newline: Grafana takes the whole file.
	return m.put(name, modeOwner, m.grafanaUser, m.grafanaUser, []byte(random()))
}

func (m *maker) cursorKeys() error {
	const name = "cursor.keys"
	missing, err := m.missing(name)
	if err != nil || !missing {
		return err
	}
	var id [3]byte
	rand.Read(id[:]) // never fails
	line := fmt.Sprintf("# Keys that sign page tokens, one id:secret a line. The first signs, all verify.\nk%x:%s\n", id, random())
	return m.put(name, modeOwner, m.programUser, m.programUser, []byte(line))
}

// random is a secret that needs no quoting anywhere.
func random() string {
	var secret [secretBytes]byte
	rand.Read(secret[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(secret[:])
}
