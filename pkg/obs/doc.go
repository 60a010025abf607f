// Package obs owns what an operator sees of a running service: its logger, its health and
// readiness, and the private listener that serves them together with metrics and profiles.
package obs
