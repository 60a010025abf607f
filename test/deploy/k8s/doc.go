// Package k8s tests what is in deploy/k8s, without a cluster: `make k8s`.
//
// Every overlay is rendered as kubectl does, and each object is checked against
// the schemas of Kubernetes and of the operators' own resources, in which an
// unknown field is an error; each pod against the restricted standard, by the code of
// Kubernetes that enforces it; and the whole against rules of ours that no schema
// knows (rules_test.go, network_test.go). The roles of the database are tried on a real
// Postgres. TestPlanted shows that each of these can fail.
//
// It is a module of its own, so that the libraries of Kubernetes are in no
// program's.
package k8s
