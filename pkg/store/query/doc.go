// Package query reads the index. [Reader] only selects, in read-only transactions with a timeout.
// The API imports no other package of the store than this one and pkg/store.
package query
