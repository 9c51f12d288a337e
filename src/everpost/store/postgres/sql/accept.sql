-- Accepting: everything of a batch of requests, a few statements in all.

-- name: idempotency_records
SELECT i.project, i.key, i.fingerprint, i.answer, i.expires_at, i.messages
FROM unnest(%s::bigint[], %s::text[]) AS v (project, key)
JOIN idempotency AS i ON i.project = v.project AND i.key = v.key;

-- A record that has ended counts as absent. Of a key that is taken, nothing comes back.
-- name: put_idempotency
WITH t (now) AS (SELECT %s::bigint)
INSERT INTO idempotency (project, key, fingerprint, answer, expires_at, messages)
SELECT * FROM unnest(
  %s::bigint[], %s::text[], %s::bytea[], %s::bytea[], %s::bigint[], %s::bytea[]
)
ON CONFLICT (project, key) DO UPDATE
SET fingerprint = excluded.fingerprint, answer = excluded.answer, expires_at = excluded.expires_at,
  messages = excluded.messages
WHERE idempotency.expires_at <= (SELECT now FROM t)
RETURNING project, key;

-- Whose content is there has its message there: that is looked at before.
-- name: add_contents
INSERT INTO contents (id, project, key_id, sealed, checksum)
SELECT * FROM unnest(%s::bytea[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bytea[]);

-- name: add_parts
INSERT INTO parts (project, day, hash, key_id, sealed, checksum)
SELECT * FROM unnest(
  %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[], %s::bytea[], %s::bytea[]
) AS v (project, day, hash, key_id, sealed, checksum)
ORDER BY project, day, hash
ON CONFLICT (project, day, hash) DO NOTHING;

-- name: add_messages
INSERT INTO messages (
  id, project, stream, content, message_id, sender, subject, lists, tags, metadata, in_doubt,
  scheduled_at, expires_at, dialect, durability, sandbox, size, return_token, group_id, api_key,
  only_relay
)
SELECT * FROM unnest(
  %s::bytea[], %s::bigint[], %s::text[], %s::bytea[], %s::text[], %s::text[], %s::text[],
  %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[],
  %s::text[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[]
)
ON CONFLICT (project, id) DO NOTHING
RETURNING id;

-- name: bear_durability
UPDATE messages AS m SET durability = v.durability
FROM unnest(%s::bigint[], %s::bytea[], %s::text[]) AS v (project, id, durability)
WHERE m.project = v.project AND m.id = v.id AND m.durability <> v.durability;

-- name: add_recipients
INSERT INTO recipients (
  message, n, project, address, destination, kind, priority, route, not_before, due, expires_at,
  crc, state
)
SELECT v.*, 'queued' FROM unnest(
  %s::bytea[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[],
  %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]
) AS v;

-- Which of these are there, and what they are further names of.
-- name: names
SELECT m.id, m.alias_of FROM unnest(%s::bigint[], %s::bytea[]) AS v (project, id)
JOIN messages AS m ON m.project = v.project AND m.id = v.id;

-- A further name has the row of the message that it stands for, and nothing else.
-- name: add_name
INSERT INTO messages (
  id, project, stream, content, message_id, sender, subject, lists, tags, metadata, in_doubt,
  scheduled_at, expires_at, dialect, durability, sandbox, size, return_token, group_id, api_key,
  only_relay, alias_of
)
SELECT %(name)s::bytea, project, stream, content, message_id, sender, subject, lists, tags,
  metadata, in_doubt, scheduled_at, expires_at, dialect, %(durability)s::text, sandbox, size,
  return_token, group_id, api_key, only_relay, id
FROM messages WHERE project = %(project)s AND id = %(of)s
ON CONFLICT (project, id) DO NOTHING;
