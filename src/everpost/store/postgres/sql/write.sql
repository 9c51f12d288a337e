-- What every write transaction may use. `%s` are values; rows come as one array a column.

-- Not in the session's settings, since a pool may stand between: what the planner must not try,
-- however stale its statistics are (every statement of ours finds a few rows by an index); and for
-- how long, in milliseconds, a process that was stopped in its transaction, or whose host cannot be
-- reached, may keep others from what it has locked, and anybody waits for a lock at once.
-- name: begin
BEGIN;
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
  pg_is_in_recovery(),
  current_setting('transaction_read_only') = 'on',
  CASE WHEN pg_is_in_recovery() THEN 0 ELSE
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
  END,
  current_setting('synchronous_commit'),
  current_setting('synchronous_standby_names'),
  current_setting('fsync') = 'on',
  current_setting('full_page_writes') = 'on',
  set_config('jit', 'off', true),
  set_config('enable_seqscan', 'off', true),
  set_config('enable_hashjoin', 'off', true),
  set_config('enable_mergejoin', 'off', true),
  set_config('idle_in_transaction_session_timeout', '5000', true),
  set_config('lock_timeout', '8000', true);

-- The same of a server that nobody writes to at the moment, and its standbys (-1: we may not see).
-- name: standing
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
  pg_is_in_recovery(),
  current_setting('transaction_read_only') = 'on',
  CASE WHEN pg_is_in_recovery() THEN 0 ELSE
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
  END,
  current_setting('synchronous_commit'),
  current_setting('synchronous_standby_names'),
  current_setting('fsync') = 'on',
  current_setting('full_page_writes') = 'on',
  (
    SELECT CASE WHEN bool_or(sync_state IS NULL) THEN -1
      ELSE count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) END
    FROM pg_stat_replication WHERE state IS NULL OR state = 'streaming'
  )::bigint;

-- What a COMMIT waits for. Where that was taken away while one waited, it was let go.
-- name: promise
SELECT current_setting('synchronous_commit'), current_setting('synchronous_standby_names');

-- A record in the log, so that COMMIT waits for all that came before it.
-- name: touch
SELECT pg_logical_emit_message(true, 'everpost', '');

-- In order, so that two who write the same rows cannot wait for each other.
-- name: add_tallies
INSERT INTO tallies (shard, project, state, n)
SELECT %s::bigint, project, state, n
FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS v (project, state, n)
ON CONFLICT (project, state, shard) DO UPDATE SET n = tallies.n + excluded.n;

-- name: move_recipients
UPDATE recipients AS r
SET state = v.state, reason = v.reason, not_before = v.not_before, due = v.due::smallint,
  settled_at = v.settled_at, via = v.via, attempts = v.attempts, crashes = v.crashes,
  owner = NULL, deadline = NULL
FROM unnest(
  %s::bytea[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[],
  %s::text[], %s::bigint[], %s::bigint[]
) AS v (message, n, state, reason, not_before, due, settled_at, via, attempts, crashes)
WHERE r.message = v.message AND r.n = v.n;

-- Locked, and with each the first recipient of its message: that one is the message's own lock.
-- Always in the same order.
-- name: recipients_by_key
SELECT message, n, project, state, due, not_before, owner, term, attempts, crashes
FROM recipients WHERE (message, n) IN (
  SELECT message, n FROM unnest(%s::bytea[], %s::bigint[]) AS v (message, n)
  UNION
  SELECT message, 1 FROM unnest(%s::bytea[]) AS v (message)
)
ORDER BY message, n FOR UPDATE;

-- name: recipients_of_message
SELECT message, n, project, state, due, not_before, owner, term, attempts, crashes
FROM recipients WHERE message = %s AND project = %s ORDER BY message, n FOR UPDATE;

-- name: last_seqs
SELECT message, max(seq) FROM events WHERE message = ANY (%s::bytea[]) GROUP BY message;

-- name: add_events
INSERT INTO events (message, seq, recipient, type, at, data)
SELECT * FROM unnest(
  %s::bytea[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::text[]
);

-- name: add_attempts
INSERT INTO attempts (
  message, n, attempt, transaction_id, started_at, ended_at, outcome, detail, record, form,
  body_hash
)
SELECT * FROM unnest(
  %s::bytea[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[], %s::bigint[], %s::text[],
  %s::text[], %s::text[], %s::text[], %s::bytea[]
);
