// Package check verifies whole indexes: that one agrees with itself, and that two show the
// same. It changes nothing.
package check
