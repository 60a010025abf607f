// Package check verifies whole indexes: that one is consistent, and that two show the same. It
// changes nothing.
package check
