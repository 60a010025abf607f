// Package service owns what all Tagstream programs do alike: command line, settings from flags and
// environment, signals, exit code and version.
//
// Every setting is a field of a group in settings.go. It is a variable TAGSTREAM_X_Y and a flag
// --x-y with the same meaning; the flag wins. An unknown TAGSTREAM_ variable stops start-up, so
// that a misspelt one is never ignored.
package service
