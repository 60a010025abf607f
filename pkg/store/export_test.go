package store

import "time"

// Migrations and SchemaVersion are for tests of migrating.
var Migrations = migrations

const SchemaVersion = schemaVersion

// SetSlice sets how long a snapshot of a verification lasts.
func (v *Verifier) SetSlice(d time.Duration) { v.slice = d }
