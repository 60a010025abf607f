// Package observability checks what operators see against the programs: metrics and their
// documentation, alert rules, and the dashboard. Its tests fail if one of these names a metric or
// label that no program has, or if an alert has no row in docs/operations.md or no test in which it
// fires.
//
// Run it with "make test-observability"; promtool, from Debian's package prometheus, checks the
// rules.
package observability
