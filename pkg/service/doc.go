// Package service owns what every Tagstream program does the same way: its
// command line, its settings from flags and environment, its signals, its exit
// code, its version.
//
// Every setting is a field of a group in settings.go: a variable TAGSTREAM_X_Y
// and a flag --x-y of the same meaning, the flag winning. A TAGSTREAM_ variable
// that is no setting stops start-up, so that a misspelt one is never ignored.
package service
