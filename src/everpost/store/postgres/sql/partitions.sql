-- A partition a day. Its name ends with the day's number since 1970; what no partition takes is in
-- the default one (`_other`). Table names are written into these statements by us.

-- One process at a time; whoever is stopped within keeps nobody from it (see `begin`). The number is
-- "EVdy".
-- name: days_alone
SELECT pg_try_advisory_xact_lock(1163289721),
  set_config('idle_in_transaction_session_timeout', '5000', true);

-- name: partitions
SELECT c.relname FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent IN (
  'contents'::regclass, 'parts'::regclass, 'events'::regclass, 'attempts'::regclass
);

-- Nobody waits for us for longer, nor do we.
-- name: briefly
SELECT set_config('lock_timeout', '1000', true);

-- name: being_dropped
SELECT value FROM meta WHERE key = 'dropping' AND value > 0;

-- name: put_dropping
INSERT INTO meta (key, value) VALUES ('dropping', %s)
ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- The earliest day of which there is anything: whoever is sent is there.
-- name: first_message
SELECT message FROM recipients ORDER BY message LIMIT 1;

-- name: next_message
SELECT message FROM recipients WHERE message >= %s ORDER BY message LIMIT 1;

-- name: live_on_day
SELECT 1 FROM recipients
WHERE message >= %(first)s AND message < %(end)s AND state IN ('queued', 'claimed', 'held') LIMIT 1;

-- What a consumer of the outbox has not seen yet.
-- name: unpublished_on_day
SELECT 1 FROM events AS e
WHERE e.message >= %(first)s AND e.message < %(end)s AND EXISTS (
  SELECT 1 FROM outbox_cursors AS c WHERE (c.tx, c.position) < (e.tx, e.position)
) LIMIT 1;

-- name: count_day
SELECT count(*), count(DISTINCT message) FROM recipients
WHERE message >= %(first)s AND message < %(end)s;

-- A slice of whole messages. What is live, after all, stays.
-- name: drop_recipients
WITH slice (message) AS (
  SELECT DISTINCT message FROM (
    SELECT message FROM recipients WHERE message >= %(first)s AND message < %(end)s
    ORDER BY message LIMIT %(most)s
  ) AS found
), gone AS (
  DELETE FROM recipients AS r USING slice WHERE r.message = slice.message
    AND NOT EXISTS (
      SELECT 1 FROM recipients AS l WHERE l.message = slice.message
        AND l.state IN ('queued', 'claimed', 'held')
    )
  RETURNING r.project, r.state, r.message
), named AS (
  DELETE FROM messages AS m USING (SELECT DISTINCT project, message FROM gone) AS g
  WHERE m.project = g.project AND m.id = g.message
)
SELECT project, state, count(*) FROM gone GROUP BY project, state;

-- Further names, and whatever else is left of the day.
-- name: drop_names
WITH RECURSIVE p (project) AS (
  (SELECT project FROM messages ORDER BY project LIMIT 1)
  UNION ALL
  SELECT (SELECT m.project FROM messages AS m WHERE m.project > p.project ORDER BY m.project LIMIT 1)
  FROM p WHERE p.project IS NOT NULL
)
DELETE FROM messages AS m USING p
WHERE m.project = p.project AND m.id >= %(first)s AND m.id < %(end)s;

-- Large parts are shared by the messages of a day.
-- name: drop_parts
DELETE FROM parts_other WHERE day = %s;

-- Whoever accepts writes contents first.
-- name: lock_days
LOCK TABLE ONLY contents, ONLY parts, ONLY events, ONLY attempts IN ACCESS EXCLUSIVE MODE;
