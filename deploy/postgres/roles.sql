-- The roles of Tagstream, run by the superuser: when the cluster is made, and
-- whenever this file or a password has changed. It can run any number of times.
--
--   tagstream_owner       owns the database: migrate, rebuild
--   tagstream_writer      group: changes rows      <- tagstream_indexer
--   tagstream_reader      group: selects           <- tagstream_api
--   tagstream_metrics     reads statistics, no rows
--   tagstream_replicator  streams to a standby, no SQL
--
-- The rights on tables are given by "indexer migrate" (pkg/store/grant.go), as
-- the tables' owner. test/deploy/containers tries what each role must not do.
\set ON_ERROR_STOP on
\set QUIET on
-- Passwords stay out of the log, also where a statement fails.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';

\set owner `cat /run/secrets/postgres_owner.password`
\set indexer `cat /run/secrets/postgres_indexer.password`
\set api `cat /run/secrets/postgres_api.password`
\set metrics `cat /run/secrets/postgres_metrics.password`
\set replicator `cat /run/secrets/postgres_replicator.password`

SELECT format('CREATE ROLE %I', name)
  FROM unnest(ARRAY['tagstream_owner', 'tagstream_writer', 'tagstream_reader', 'tagstream_indexer',
                    'tagstream_api', 'tagstream_metrics', 'tagstream_replicator']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE tagstream_writer NOLOGIN;
ALTER ROLE tagstream_reader NOLOGIN;
ALTER ROLE tagstream_owner LOGIN CONNECTION LIMIT 10 PASSWORD :'owner';
ALTER ROLE tagstream_indexer LOGIN CONNECTION LIMIT 20 PASSWORD :'indexer';
ALTER ROLE tagstream_api LOGIN CONNECTION LIMIT 80 PASSWORD :'api';
ALTER ROLE tagstream_metrics LOGIN CONNECTION LIMIT 3 PASSWORD :'metrics';
ALTER ROLE tagstream_replicator LOGIN REPLICATION CONNECTION LIMIT 4 PASSWORD :'replicator';
GRANT tagstream_writer TO tagstream_indexer;
GRANT tagstream_reader TO tagstream_api;
GRANT pg_monitor TO tagstream_metrics;

-- The programs set shorter ones themselves; these hold for whoever has a
-- password. The owner's migrations take as long as they take, and wait for each
-- other.
ALTER ROLE tagstream_api SET default_transaction_read_only = on;
ALTER ROLE tagstream_api SET statement_timeout = '10s';
ALTER ROLE tagstream_api SET lock_timeout = '5s';
ALTER ROLE tagstream_api SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE tagstream_api SET temp_file_limit = '256MB';
ALTER ROLE tagstream_indexer SET statement_timeout = '1h'; -- "indexer verify" counts
ALTER ROLE tagstream_indexer SET lock_timeout = '1min';
ALTER ROLE tagstream_indexer SET idle_in_transaction_session_timeout = '5min';
ALTER ROLE tagstream_owner SET idle_in_transaction_session_timeout = '15min';
ALTER ROLE tagstream_metrics SET default_transaction_read_only = on;
ALTER ROLE tagstream_metrics SET statement_timeout = '10s';
ALTER ROLE tagstream_metrics SET lock_timeout = '1s';
ALTER ROLE tagstream_metrics SET idle_in_transaction_session_timeout = '10s';

SELECT 'CREATE DATABASE tagstream OWNER tagstream_owner'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'tagstream') \gexec
REVOKE ALL ON DATABASE tagstream, postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE tagstream TO tagstream_writer, tagstream_reader, tagstream_metrics;

\connect tagstream
REVOKE ALL ON SCHEMA public FROM PUBLIC;
