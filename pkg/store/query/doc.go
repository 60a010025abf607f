// Package query answers questions about the index. [Reader] only selects, in read-only
// transactions with a time-out; of the packages of the store, the API imports this one and
// pkg/store.
package query
