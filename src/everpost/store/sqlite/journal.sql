-- A node's accept journal: a file of its own, data/journal.db. Bodies lie apart, so that a change of
-- an entry's state does not write its body again.

-- name: journal_schema
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE entries (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  first BLOB NOT NULL UNIQUE,
  origin TEXT NOT NULL,
  at INTEGER NOT NULL,
  octets INTEGER NOT NULL,
  copied INTEGER NOT NULL DEFAULT 0,
  state TEXT NOT NULL DEFAULT 'pending',
  drained_at INTEGER,
  timeline INTEGER
) STRICT;
CREATE INDEX entries_by_state ON entries (state, number);
CREATE TABLE bodies (
  number INTEGER PRIMARY KEY,
  origin TEXT NOT NULL,
  at INTEGER NOT NULL,
  first BLOB NOT NULL,
  body BLOB NOT NULL,
  checksum BLOB NOT NULL
) STRICT;
CREATE TABLE nodes (name TEXT PRIMARY KEY, seen BLOB NOT NULL) STRICT;
PRAGMA user_version = 1;

-- name: add_entry
INSERT INTO entries (first, origin, at, octets) VALUES (?, ?, ?, ?)
ON CONFLICT (first) DO NOTHING RETURNING number;

-- name: add_body
INSERT INTO bodies (number, origin, at, first, body, checksum) VALUES (?, ?, ?, ?, ?, ?);

-- name: pending_entries
SELECT number, at, copied, octets FROM entries
WHERE state = 'pending' AND number > :after ORDER BY number LIMIT :most;

-- name: entry
SELECT number, at, copied, octets FROM entries WHERE number = ?;

-- name: entry_state
SELECT state FROM entries WHERE number = ?;

-- name: body
SELECT body, checksum FROM bodies WHERE number = ?;

-- name: mark_copied
UPDATE entries SET copied = 1 WHERE number = ?;

-- name: mark_drained
UPDATE entries SET state = 'drained', drained_at = :at, timeline = :timeline
WHERE number = :number AND state = 'pending';

-- name: mark_damaged
UPDATE entries SET state = 'damaged' WHERE number = ?;

-- name: drain_again
UPDATE entries SET state = 'pending' WHERE state = 'drained' AND timeline < ?;

-- name: over_entries
SELECT number FROM entries WHERE state = 'drained' AND drained_at < :before
ORDER BY number LIMIT :most;

-- name: drop_entry
DELETE FROM entries WHERE number = ?;

-- name: drop_body
DELETE FROM bodies WHERE number = ?;

-- name: journal_size
SELECT state, count(*), min(at), sum(octets) FROM entries GROUP BY state;

-- name: remember_node
INSERT INTO nodes (name, seen) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET seen = excluded.seen;

-- name: forget_nodes
DELETE FROM nodes;

-- name: remembered_nodes
SELECT seen FROM nodes ORDER BY name;

-- name: bodies_upward
SELECT number, CAST(origin AS BLOB), at, first, body, checksum FROM bodies ORDER BY number;

-- name: bodies_downward
SELECT number, CAST(origin AS BLOB), at, first, body, checksum FROM bodies ORDER BY number DESC;

-- name: body_as_it_is
SELECT number, CAST(origin AS BLOB), at, first, body, checksum FROM bodies WHERE number = ?;
