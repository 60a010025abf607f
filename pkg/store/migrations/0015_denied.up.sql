-- Takes a moment: the index reads accounts once. An API of an older version answers meanwhile,
-- and serves denied tags. Every statement can run twice.

BEGIN;

-- Whoever waits for a lock keeps out those that come after. Give up soon: it is
-- tried again.
SET LOCAL lock_timeout = '500ms';

-- First, as in an indexer's transaction: another order is a deadlock with it. An older
-- indexer would show denied accounts.
ALTER TABLE checkpoint ALTER COLUMN writer_version SET DEFAULT 15;
UPDATE checkpoint SET writer_version = 15;

-- What the operator's deny list says: accounts whose posts are hidden, known or not, and tags that
-- no list of tags has, and no query finds.
CREATE TABLE IF NOT EXISTS denied_accounts (did text COLLATE "C" NOT NULL, CONSTRAINT denied_accounts_pkey PRIMARY KEY (did));
CREATE TABLE IF NOT EXISTS denied_tags (name text COLLATE "C" NOT NULL, CONSTRAINT denied_tags_pkey PRIMARY KEY (name));
-- Serves the accounts that are shown again when they leave the deny list.
CREATE INDEX IF NOT EXISTS accounts_withheld_idx ON accounts (id) WHERE state <> told;

COMMIT;
