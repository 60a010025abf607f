// Package pgserver runs a private Postgres in a directory, from binaries that the machine has. It
// installs nothing.
//
//	cluster/       the data directory, owned by the account Postgres runs as
//	secrets/       one password per role, 0600, the same after every restart
//	postgres.log   the server's own log, and postgres.log.1 before it
//	socket.path    the folder of the Unix socket, elsewhere because its path must be short
//	service.conf   an empty libpq service, instead of the environment's
//	lock           held while a Server exists
//
// Promises. Clients reach a server by a Unix socket, with a password, in a folder that only its
// account can enter; there is no TCP unless Config asks for a loopback port. If this process is
// root, Postgres runs under another account, even below directories that this account cannot enter.
// The server is a child in its own process group: a terminal's Ctrl-C reaches only this process,
// and the caller decides when the database ends. No server outlives its Server unless this process
// is killed; on Linux the kernel then asks the server to shut down, and on every system the next
// Start completes that first. Start signals no process unless it has proved it to be the server of
// this directory.
//
// Failures. Find returns ErrNotFound with advice. Start returns a *dirlock.HeldError if a live
// process holds the directory, a *VersionError if the cluster needs other binaries, and otherwise
// an error that ends with the last lines of the server's log. Retrying is safe.
package pgserver
