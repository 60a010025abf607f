package store

// Migrations and SchemaVersion are for tests of migrating.
var Migrations = migrations

const SchemaVersion = schemaVersion
