-- What doors show. A message that is only a further name stands for another: it is in no list.

-- name: message_ids_older
SELECT id FROM messages
WHERE project = %(project)s AND id < %(bound)s AND alias_of IS NULL
ORDER BY id DESC LIMIT %(most)s;

-- name: message_ids_newer
SELECT id FROM messages
WHERE project = %(project)s AND id > %(bound)s AND alias_of IS NULL
ORDER BY id LIMIT %(most)s;

-- name: sandbox_ids_older
SELECT id FROM messages
WHERE project = %(project)s AND sandbox = 1 AND id < %(bound)s AND alias_of IS NULL
ORDER BY id DESC LIMIT %(most)s;

-- name: sandbox_ids_newer
SELECT id FROM messages
WHERE project = %(project)s AND sandbox = 1 AND id > %(bound)s AND alias_of IS NULL
ORDER BY id LIMIT %(most)s;

-- name: sent_ids_older
SELECT id FROM messages
WHERE project = %(project)s AND sandbox = 0 AND id < %(bound)s AND alias_of IS NULL
ORDER BY id DESC LIMIT %(most)s;

-- name: sent_ids_newer
SELECT id FROM messages
WHERE project = %(project)s AND sandbox = 0 AND id > %(bound)s AND alias_of IS NULL
ORDER BY id LIMIT %(most)s;

-- One by one (OFFSET 0): without statistics the planner would read all of the project's.
-- name: messages_by_id
SELECT m.* FROM unnest(%s::bytea[]) AS v (id) CROSS JOIN LATERAL (
  SELECT id, project, stream, message_id, sender, subject, lists, tags, metadata, scheduled_at,
    expires_at, in_doubt, dialect, sandbox, durability, size, content
  FROM messages WHERE messages.project = %s AND messages.id = v.id OFFSET 0
) AS m;

-- name: recipients_by_message
SELECT message, n, address, destination, kind, state, reason, route, attempts, not_before,
  expires_at, settled_at, via
FROM recipients WHERE message = ANY (%s::bytea[]) ORDER BY message, n;

-- name: content
SELECT key_id, sealed, checksum FROM contents WHERE id = %s;

-- name: parts
SELECT p.day, p.hash, p.key_id, p.sealed, p.checksum
FROM unnest(%s::bigint[], %s::bytea[]) AS v (day, hash)
JOIN parts AS p ON p.project = %s AND p.day = v.day AND p.hash = v.hash
WHERE p.day = ANY (%s::bigint[]);

-- name: answered
SELECT fingerprint, answer, expires_at FROM idempotency WHERE project = %s AND key = %s;

-- The message by its id as it stands here: the planner leaves out all other days.
-- name: attempts_of_message
SELECT n, attempt, started_at, ended_at, detail, record FROM attempts WHERE message = %s
ORDER BY started_at, n, attempt;

-- name: events_of_message
SELECT message, seq, recipient, type, at, data, tx::text, position FROM events WHERE message = %s
ORDER BY seq;

-- However stale the planner's statistics are: what follows finds a few rows by an index.
-- name: by_index
SELECT set_config('jit', 'off', true),
  set_config('enable_seqscan', 'off', true),
  set_config('enable_bitmapscan', 'off', true),
  set_config('enable_hashjoin', 'off', true),
  set_config('enable_mergejoin', 'off', true),
  set_config('enable_sort', 'off', true);

-- name: tallies
SELECT state, sum(n)::bigint FROM tallies GROUP BY state;

-- name: due_now
SELECT count(*) FROM (
  SELECT 1 FROM recipients WHERE state = 'queued' AND due = 1
  ORDER BY priority, route, not_before LIMIT %(most)s
) AS found;

-- name: due_unseen
SELECT count(*) FROM (
  SELECT 1 FROM recipients WHERE state = 'queued' AND due = 0 AND not_before <= %(now)s
  ORDER BY not_before LIMIT %(most)s
) AS found;

-- name: next_later
SELECT not_before FROM recipients WHERE state = 'queued' AND due = 0 ORDER BY not_before LIMIT 1;

-- The earliest row of each lane; `most` bounds the lanes looked at. From lane to lane by skipping,
-- past whole projects and streams that are busy.
-- name: lane_heads
WITH RECURSIVE lane (priority, route) AS (
  SELECT v.priority, (
    SELECT r.route FROM recipients AS r
    WHERE r.state = 'queued' AND r.due = 1 AND r.priority = v.priority
    ORDER BY r.route LIMIT 1
  )
  FROM (VALUES (0::smallint), (1::smallint)) AS v (priority) WHERE v.priority <= %(priority)s
  UNION ALL
  SELECT lane.priority, (
    SELECT r.route FROM recipients AS r
    WHERE r.state = 'queued' AND r.due = 1 AND r.priority = lane.priority
      AND r.route > coalesce(
        (
          SELECT (g.name || %(last)s) COLLATE "C"
          FROM unnest(%(busy_groups)s::text[]) AS g (name)
          WHERE starts_with(lane.route, g.name) LIMIT 1
        ),
        lane.route
      )
    ORDER BY r.route LIMIT 1
  )
  FROM lane WHERE lane.route IS NOT NULL
)
SELECT min((
  SELECT r.not_before FROM recipients AS r
  WHERE r.state = 'queued' AND r.due = 1 AND r.priority = lane.priority AND r.route = lane.route
  ORDER BY r.not_before LIMIT 1
))
FROM (SELECT priority, route FROM lane LIMIT %(most)s) AS lane
WHERE lane.route IS NOT NULL AND lane.route <> ALL (%(busy)s::text[])
  AND NOT EXISTS (
    SELECT 1 FROM unnest(%(busy_groups)s::text[]) AS g (name)
    WHERE starts_with(lane.route, g.name)
  );
