// Package query answers queries of the index. [Reader] only selects, in read-only transactions with
// a time-out. Of the store's packages the API imports only this one and pkg/store.
package query
