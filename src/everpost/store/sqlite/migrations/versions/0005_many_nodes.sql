-- Nodes, and what a journal accepted before the database did (SQLite).

-- The ids of the request's messages, 16 bytes each, in order: what was accepted under the same key
-- on another node becomes a further name of them (messages.alias_of). Empty: of an earlier release.
ALTER TABLE idempotency ADD COLUMN messages BLOB NOT NULL DEFAULT x'';

ALTER TABLE workers ADD COLUMN node TEXT NOT NULL DEFAULT '';

CREATE TABLE nodes (
  name TEXT PRIMARY KEY,
  site TEXT NOT NULL,
  version TEXT NOT NULL,
  address TEXT NOT NULL,
  roles TEXT NOT NULL, -- JSON [role, …]
  started_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  skew_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
