// Package observability holds what operators see to the programs: the metrics,
// their documentation, the alert rules, and the dashboard. Its tests fail where
// one of these names a metric or a label that no program has, where an alert has
// no row that says what to do, or no test in which it fires.
//
// Run it with "make test-observability"; promtool, of Debian's package
// prometheus, checks the rules.
package observability
