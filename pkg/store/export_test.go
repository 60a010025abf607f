package store

// Migrations is for the tests of migrations.
var Migrations = migrations

// MigrationLock is the key of the lock that Migrate holds.
const MigrationLock = migrationLock
