package store

// AnyOf lets tests explain the query that Posts runs.
var AnyOf = anyOf

// ReaderSettings lets tests explain under the reader's own settings.
var ReaderSettings = readerSettings

// Migrations and SchemaVersion are for tests of migrating.
var Migrations = migrations

const SchemaVersion = schemaVersion
