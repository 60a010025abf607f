// Command secrets creates the credentials of a deployment: a certificate authority, certificates
// for NATS and Postgres, nkeys of the NATS users, passwords of the database roles, and the keys
// that sign page tokens.
//
// It writes one file for each into one folder and leaves existing files alone, so it can run before
// every start. To replace a credential, delete its file and run again; docs/deployment.md lists
// what to restart then.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

const (
	exitFailed = 1
	exitConfig = 2
)

func main() {
	var o options
	flag.StringVar(&o.dir, "out", "", "`FOLDER` to write to")
	flag.IntVar(&o.programUser, "program-user", 65532, "`UID` and gid of our programs and NATS in their containers; -1 changes no owner")
	flag.IntVar(&o.postgresUser, "postgres-user", 999, "`UID` and gid of Postgres in its container")
	flag.IntVar(&o.grafanaUser, "grafana-user", 472, "`UID` and gid of Grafana in its container")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "secrets makes the certificates, keys and passwords of a deployment, those that are missing.\n\nFlags:\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if o.dir == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "secrets: --out must name the folder to write to, and there are no other arguments")
		os.Exit(exitConfig)
	}
	made, err := run(o)
	for _, name := range made {
		fmt.Println("made", name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "secrets:", err)
		if errors.Is(err, os.ErrPermission) {
			fmt.Fprintln(os.Stderr, "secrets: it must run as root, or with --program-user=-1, to give each file to who reads it")
		}
		os.Exit(exitFailed)
	}
}
