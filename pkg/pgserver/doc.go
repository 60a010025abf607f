// Package pgserver runs a private Postgres in a directory of ours, from binaries that the machine
// has. It installs nothing.
//
//	cluster/       the data directory, owned by the account Postgres runs as
//	secrets/       one password a role, 0600, the same after every restart
//	postgres.log   the server's own log, and postgres.log.1 before it
//	socket.path    the folder of the Unix socket, outside for its short path
//	service.conf   an empty libpq service, in the place of the environment's
//	lock           held while a Server lives
//
// Promises. A server is reached by a Unix socket in a folder that only its account can enter, with
// a password, and not by TCP unless Config asks for a loopback port. Where this process is root,
// Postgres runs under another account, also below directories that this account cannot enter. The
// server is a child in a process group apart: a terminal's Ctrl-C reaches us alone, and the caller
// decides when the database ends. No server outlives its Server except where this process is
// killed; on Linux the kernel then asks it to shut down, and everywhere the next Start finishes that
// before it begins. Start signals no process that it did not prove to be the server of this
// directory.
//
// Failures. Find returns ErrNotFound with what to do about it. Start returns a *dirlock.HeldError
// where a live process holds the directory, a *VersionError where the cluster needs other binaries,
// and otherwise an error that ends with the last lines of the server's log. Trying again is safe.
package pgserver
