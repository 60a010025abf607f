package store

// Migrations is for tests of migrating.
var Migrations = migrations

// MigrationLock is the key of what Migrate holds.
const MigrationLock = migrationLock
