-- What processes tell each other: notes, leases, shares of limits.

-- One counter for all notes: it must not fall back when the newest note is purged.
-- name: count_notes
INSERT INTO meta (key, value) VALUES ('notes', ?)
ON CONFLICT (key) DO UPDATE SET value = value + excluded.value
RETURNING value;

-- name: newest_note
SELECT value FROM meta WHERE key = 'notes';

-- name: put_notes
INSERT OR FAIL INTO notes (kind, key, data, expires_at, version) VALUES /*rows*/ (?, ?, ?, ?, ?)
ON CONFLICT (kind, key) DO UPDATE
SET data = excluded.data, expires_at = excluded.expires_at, version = excluded.version;

-- name: notes_after
SELECT kind, key, data, expires_at, version FROM notes INDEXED BY notes_version
WHERE version > ? AND expires_at > ? ORDER BY version;

-- Whoever reads all that holds looks at these kinds alone: a month has many thousands of greylists.
-- name: notes_of_kinds
SELECT kind, key, data, expires_at, version FROM notes
WHERE kind IN (SELECT value FROM json_each(?)) AND expires_at > ? ORDER BY version;

-- name: lease_of
SELECT owner, term, deadline FROM leases WHERE name = ?;

-- name: put_lease
INSERT INTO leases (name, owner, term, deadline) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, term = excluded.term, deadline = excluded.deadline;

-- The row stays, for its term.
-- name: yield_lease
UPDATE leases SET deadline = 0 WHERE name = ? AND owner = ?;

-- name: processes_that_share
SELECT id FROM workers WHERE role = 'dispatch';

-- name: seats_by_name
SELECT name, owner, amount, want, ends_at FROM seats WHERE name IN (VALUES /*rows*/ (?));

-- name: put_seats
INSERT OR FAIL INTO seats (name, owner, amount, want, ends_at) VALUES /*rows*/ (?, ?, ?, ?, ?)
ON CONFLICT (name, owner) DO UPDATE
SET amount = excluded.amount, want = excluded.want, ends_at = excluded.ends_at;

-- name: drop_seats
DELETE FROM seats WHERE (name, owner) IN (VALUES /*rows*/ (?, ?));

-- name: drop_seats_of_owner
DELETE FROM seats WHERE owner = ?;

-- name: budgets_by_name
SELECT name, starts_at, granted FROM budgets WHERE name IN (VALUES /*rows*/ (?));

-- name: put_budgets
INSERT OR FAIL INTO budgets (name, starts_at, ends_at, granted) VALUES /*rows*/ (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET starts_at = excluded.starts_at, ends_at = excluded.ends_at, granted = excluded.granted;

-- name: purge_notes
DELETE FROM notes WHERE expires_at < :before;

-- name: purge_seats
DELETE FROM seats WHERE ends_at < :steady OR ends_at > :beyond;

-- name: purge_budgets
DELETE FROM budgets WHERE ends_at < :before;

-- name: purgeable_shares
SELECT 1 WHERE EXISTS (SELECT 1 FROM notes WHERE expires_at < :before)
  OR EXISTS (SELECT 1 FROM seats WHERE ends_at < :steady OR ends_at > :beyond)
  OR EXISTS (SELECT 1 FROM budgets WHERE ends_at < :before);
