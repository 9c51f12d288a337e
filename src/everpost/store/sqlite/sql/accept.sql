-- Accepting: everything of a batch of requests, a few statements in all.

-- name: idempotency_records
SELECT project, key, fingerprint, answer, expires_at, messages FROM idempotency
WHERE (project, key) IN (VALUES /*rows*/ (?, ?));

-- name: put_idempotency
INSERT INTO idempotency (project, key, fingerprint, answer, expires_at, messages)
VALUES /*rows*/ (?, ?, ?, ?, ?, ?)
ON CONFLICT (project, key) DO UPDATE
SET fingerprint = excluded.fingerprint, answer = excluded.answer, expires_at = excluded.expires_at,
  messages = excluded.messages;

-- name: add_contents
INSERT OR FAIL INTO contents (id, project, key_id, sealed, checksum)
VALUES /*rows*/ (?, ?, ?, ?, ?);

-- name: add_parts
INSERT INTO parts (project, day, hash, key_id, sealed, checksum)
VALUES /*rows*/ (?, ?, ?, ?, ?, ?)
ON CONFLICT (project, day, hash) DO NOTHING;

-- name: add_messages
INSERT OR FAIL INTO messages (
  id, project, stream, content, message_id, sender, subject, lists, tags, metadata, in_doubt,
  scheduled_at, expires_at, dialect, durability, sandbox, size, return_token, group_id, api_key,
  only_relay
)
VALUES /*rows*/ (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: add_recipients
INSERT OR FAIL INTO recipients (
  message, n, project, address, destination, kind, state, priority, route, not_before, due,
  expires_at, crc
)
VALUES /*rows*/ (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?);

-- Which of these are there, and what they are further names of.
-- name: names
SELECT id, alias_of FROM messages WHERE (project, id) IN (VALUES /*rows*/ (?, ?));

-- A further name has the row of the message that it stands for, and nothing else.
-- name: add_name
INSERT INTO messages (
  id, project, stream, content, message_id, sender, subject, lists, tags, metadata, in_doubt,
  scheduled_at, expires_at, dialect, durability, sandbox, size, return_token, group_id, api_key,
  only_relay, alias_of
)
SELECT :name, project, stream, content, message_id, sender, subject, lists, tags, metadata,
  in_doubt, scheduled_at, expires_at, dialect, :durability, sandbox, size, return_token, group_id,
  api_key, only_relay, id
FROM messages WHERE project = :project AND id = :of;
