// Package k8s tests deploy/k8s without a cluster: `make k8s`.
//
// Every overlay is rendered as by kubectl. Each object is checked against the schemas of Kubernetes
// and of the operators, with unknown fields as errors; each pod against the restricted Pod Security
// standard, by the Kubernetes code that enforces it; and everything against our own rules
// (rules_test.go, network_test.go). The database roles are tried on a real Postgres. TestPlanted
// shows that each of these checks can fail.
//
// It is part of a separate module, so that no program depends on Kubernetes libraries.
package k8s
