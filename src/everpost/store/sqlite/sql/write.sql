-- What every write transaction may use.

-- name: add_tallies
INSERT INTO tallies (project, state, n) VALUES /*rows*/ (?, ?, ?)
ON CONFLICT (project, state, shard) DO UPDATE SET n = n + excluded.n;

-- Any page that changes will do: its frame takes the place of a failed transaction's first one.
-- name: overwrite_tail
INSERT INTO meta (key, value) VALUES ('reopened', 1)
ON CONFLICT (key) DO UPDATE SET value = value + 1;

-- OR FAIL in statements of many rows: with the default, OR ABORT, SQLite journals each page of the
-- statement so that it can be undone by itself, which makes an update three times as slow. Here a
-- failure undoes the transaction or its savepoint.
-- name: move_recipients
WITH v (message, n, state, reason, not_before, due, settled_at, via, attempts, crashes) AS (
  VALUES /*rows*/ (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
)
UPDATE OR FAIL recipients
SET state = v.state, reason = v.reason, not_before = v.not_before, due = v.due,
  settled_at = v.settled_at, via = v.via, attempts = v.attempts, crashes = v.crashes,
  owner = NULL, deadline = NULL
FROM v WHERE recipients.message = v.message AND recipients.n = v.n;

-- name: recipients_by_key
SELECT message, n, project, state, due, not_before, owner, term, attempts, crashes
FROM recipients WHERE (message, n) IN (VALUES /*rows*/ (?, ?));

-- name: recipients_of_message
SELECT message, n, project, state, due, not_before, owner, term, attempts, crashes
FROM recipients WHERE message = ? AND project = ?;

-- name: last_seqs
SELECT message, max(seq) FROM events WHERE message IN (VALUES /*rows*/ (?)) GROUP BY message;

-- name: add_events
INSERT OR FAIL INTO events (message, seq, recipient, type, at, data)
VALUES /*rows*/ (?, ?, ?, ?, ?, ?);

-- name: add_attempts
INSERT OR FAIL INTO attempts (
  message, n, attempt, transaction_id, started_at, ended_at, outcome, detail, record, form,
  body_hash
)
VALUES /*rows*/ (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);
