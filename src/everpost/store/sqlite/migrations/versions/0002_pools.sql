-- Pools and routes, weights of projects and streams, what processes tell each other (SQLite).

CREATE TABLE pools (
  id BLOB PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  settings TEXT NOT NULL, -- JSON: tiers (lists of relay ids), spill_below, floor
  created_at INTEGER NOT NULL
) STRICT;

-- The first by position that fits decides.
CREATE TABLE routes (
  id BLOB PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  position INTEGER NOT NULL,
  pool BLOB NOT NULL REFERENCES pools (id),
  settings TEXT NOT NULL, -- JSON: what it must fit
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX routes_pool ON routes (pool);

ALTER TABLE projects ADD COLUMN weight INTEGER NOT NULL DEFAULT 1;
ALTER TABLE streams ADD COLUMN weight INTEGER NOT NULL DEFAULT 1;

-- The one relay that may carry it: test messages, canaries.
ALTER TABLE messages ADD COLUMN only_relay BLOB;

-- What one process found out and others should know.
CREATE TABLE notes (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  data TEXT NOT NULL, -- JSON
  expires_at INTEGER NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX notes_version ON notes (version);

-- Shares of limits that hold over all processes. `seats`: held by an owner until `ends_at`.
CREATE TABLE seats (
  name TEXT NOT NULL,
  owner BLOB NOT NULL,
  amount INTEGER NOT NULL,
  want INTEGER NOT NULL,
  ends_at INTEGER NOT NULL,
  PRIMARY KEY (name, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX seats_owner ON seats (owner);

-- Uses granted in a window that began at `starts_at`.
CREATE TABLE budgets (
  name TEXT PRIMARY KEY,
  starts_at INTEGER NOT NULL,
  ends_at INTEGER NOT NULL,
  granted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A route (lane of the queue) is project/stream/destination from now on.
UPDATE recipients SET route = project || '/' || coalesce(
  (SELECT stream FROM messages AS m WHERE m.project = recipients.project AND m.id = recipients.message),
  'transactional'
) || '/' || destination
WHERE state IN ('queued', 'claimed', 'held');
