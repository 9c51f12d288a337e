-- Claiming. `recipients_queue` holds only what is due, in lanes (priority, route). A route reads
-- project/stream/destination, so the queue's projects, a project's streams and a stream's lanes are
-- found by skipping from one to the next: neither a million rows in one lane, nor ten thousand
-- lanes, nor a million rows that wait for their hour cost anything. Whoever claims at the same time
-- steps over what another has locked. `busy` names lanes, and by what they end with (a slash) whole
-- projects and streams; `last` sorts after every character.

-- Whether anything has come due that is not in the queue yet, and the first route of each priority.
-- name: anything_due
SELECT EXISTS (
    SELECT 1 FROM recipients WHERE state = 'queued' AND due = 0 AND not_before <= %s
  ), (
    SELECT route FROM recipients WHERE state = 'queued' AND due = 1 AND priority = 0
    ORDER BY route LIMIT 1
  ), (
    SELECT route FROM recipients WHERE state = 'queued' AND due = 1 AND priority = 1
    ORDER BY route LIMIT 1
  );

-- The first and the last route: mostly they are of one stream, and that is all there is.
-- name: queue_ends
SELECT (
    SELECT route FROM recipients WHERE state = 'queued' AND due = 1 AND priority = %(priority)s
    ORDER BY route LIMIT 1
  ), (
    SELECT route FROM recipients WHERE state = 'queued' AND due = 1 AND priority = %(priority)s
    ORDER BY route DESC LIMIT 1
  );

-- name: queued_projects
WITH RECURSIVE head (route, room) AS (
  SELECT (
    SELECT route FROM recipients
    WHERE state = 'queued' AND due = 1 AND priority = %(priority)s
      AND route > %(after)s AND route <= %(upto)s
    ORDER BY route LIMIT 1
  ), %(most)s::bigint
  UNION ALL
  SELECT (
    SELECT r.route FROM recipients AS r
    WHERE state = 'queued' AND due = 1 AND priority = %(priority)s
      AND r.route > split_part(head.route, '/', 1) || '/' || %(last)s
      AND r.route <= %(upto)s
    ORDER BY r.route LIMIT 1
  ), room - 1
  FROM head WHERE head.route IS NOT NULL AND room > 1
)
SELECT split_part(route, '/', 1) || '/', coalesce((
    SELECT weight FROM projects
    WHERE id = CASE WHEN route ~ '^[0-9]{1,18}/' THEN split_part(route, '/', 1)::bigint END
  ), 1)
FROM head WHERE route IS NOT NULL;

-- The streams of several projects, each given as (after, upto); `most` of each.
-- name: queued_streams
WITH RECURSIVE head (n, upto, route, room) AS (
  SELECT v.n, v.upto COLLATE "C", (
    SELECT route FROM recipients
    WHERE state = 'queued' AND due = 1 AND priority = %(priority)s
      AND route > v.after AND route <= v.upto
    ORDER BY route LIMIT 1
  ), %(most)s::bigint
  FROM unnest(%(after)s::text[], %(upto)s::text[]) WITH ORDINALITY AS v (after, upto, n)
  UNION ALL
  SELECT n, upto, (
    SELECT r.route FROM recipients AS r
    WHERE state = 'queued' AND due = 1 AND priority = %(priority)s
      AND r.route > split_part(head.route, '/', 1) || '/' || split_part(head.route, '/', 2) || '/'
        || %(last)s
      AND r.route <= head.upto
    ORDER BY r.route LIMIT 1
  ), room - 1
  FROM head WHERE head.route IS NOT NULL AND room > 1
)
SELECT n - 1, split_part(route, '/', 1) || '/' || split_part(route, '/', 2) || '/', coalesce((
    SELECT weight FROM streams
    WHERE project = CASE WHEN route ~ '^[0-9]{1,18}/' THEN split_part(route, '/', 1)::bigint END
      AND name = split_part(route, '/', 2)
  ), 1)
FROM head WHERE route IS NOT NULL;

-- The lanes of several streams, each given as (after, upto, most).
-- name: queued_lanes
WITH RECURSIVE head (n, upto, route, room) AS (
  SELECT v.n, v.upto COLLATE "C", (
    SELECT route FROM recipients
    WHERE state = 'queued' AND due = 1 AND priority = %(priority)s
      AND route > v.after AND route <= v.upto
    ORDER BY route LIMIT 1
  ), v.most
  FROM unnest(%(after)s::text[], %(upto)s::text[], %(most)s::bigint[])
    WITH ORDINALITY AS v (after, upto, most, n)
  UNION ALL
  SELECT n, upto, (
    SELECT r.route FROM recipients AS r
    WHERE state = 'queued' AND due = 1 AND priority = %(priority)s
      AND r.route > head.route AND r.route <= head.upto
    ORDER BY r.route LIMIT 1
  ), room - 1
  FROM head WHERE head.route IS NOT NULL AND room > 1
)
SELECT n - 1, route FROM head WHERE route IS NOT NULL;

-- Lanes in order, whoever's they are.
-- name: lanes
WITH RECURSIVE lane (route) AS (
  SELECT '' COLLATE "C"
  UNION ALL
  SELECT (
    SELECT r.route FROM recipients AS r
    WHERE state = 'queued' AND due = 1 AND priority = %(priority)s AND r.route > coalesce(
        (
          SELECT name || %(last)s FROM unnest(%(busy_groups)s::text[]) AS name
          WHERE starts_with(lane.route, name) LIMIT 1
        ),
        lane.route
      )
    ORDER BY r.route LIMIT 1
  )
  FROM lane WHERE lane.route IS NOT NULL
)
SELECT route FROM lane
WHERE route <> '' AND route <> ALL (%(busy)s::text[])
  AND NOT EXISTS (
    SELECT 1 FROM unnest(%(busy_groups)s::text[]) AS name WHERE starts_with(lane.route, name)
  )
LIMIT %(most)s;

-- The oldest `share` rows of each of many lanes, claimed; in no order.
-- name: claim_rows
WITH picked AS MATERIALIZED (
  SELECT r.message, r.n FROM unnest(%(lanes)s::text[]) AS lane (route) CROSS JOIN LATERAL (
    SELECT message, n FROM recipients
    WHERE state = 'queued' AND due = 1 AND priority = %(priority)s AND route = lane.route
    ORDER BY not_before, message, n LIMIT %(share)s FOR NO KEY UPDATE SKIP LOCKED
  ) AS r
)
UPDATE recipients AS r
SET state = 'claimed', owner = %(owner)s, deadline = %(deadline)s, term = r.term + 1
FROM picked WHERE r.message = picked.message AND r.n = picked.n
RETURNING r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts,
  r.crashes, r.not_before, r.expires_at, r.crc;

-- Rows that a claim may have taken, as far as nobody has locked them.
-- name: claimed_before
SELECT message, n, project, term, address, destination, route, attempts, crashes, not_before,
  expires_at, crc, state, owner
FROM recipients
WHERE (message, n) IN (SELECT * FROM unnest(%s::bytea[], %s::bigint[]))
ORDER BY message, n FOR NO KEY UPDATE SKIP LOCKED;

-- name: promote_due
WITH picked AS MATERIALIZED (
  SELECT message, n FROM recipients WHERE state = 'queued' AND due = 0 AND not_before <= %s
  ORDER BY not_before LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE recipients AS r SET due = 1
FROM picked WHERE r.message = picked.message AND r.n = picked.n;

-- Contents are asked for by their ids as they stand here: the planner leaves out all other days.
-- name: claimed_messages
SELECT m.id, m.project, m.stream, m.sender, m.in_doubt, m.return_token, m.sandbox, m.size,
  m.content, c.key_id, c.checksum, CASE WHEN length(c.sealed) <= %s THEN c.sealed END, m.tags,
  m.only_relay, (SELECT value FROM meta WHERE key = 'revision')
FROM unnest(%s::bigint[], %s::bytea[]) AS v (project, id)
JOIN messages AS m ON m.project = v.project AND m.id = v.id
LEFT JOIN contents AS c ON c.id = m.content AND c.id = ANY (%s::bytea[]);

-- name: body_hashes
SELECT message, form, body_hash FROM attempts
WHERE message = ANY (%s::bytea[]) AND form IS NOT NULL AND body_hash IS NOT NULL
ORDER BY started_at, attempt, n;

-- name: extend_claims
UPDATE recipients AS r SET deadline = %s
FROM (SELECT %s::bytea AS owner) AS o, unnest(%s::bytea[], %s::bigint[], %s::bigint[])
  AS v (message, n, term)
WHERE r.message = v.message AND r.n = v.n AND r.term = v.term
  AND r.state = 'claimed' AND r.owner = o.owner
RETURNING r.message, r.n, r.term;
