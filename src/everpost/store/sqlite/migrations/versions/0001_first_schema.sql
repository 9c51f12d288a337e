-- The first schema (SQLite). Times are integer milliseconds since 1970 UTC; ids are 16 bytes of a
-- UUIDv7, whose first 48 bits give the day a row belongs to. Later releases add to it (expand) and
-- remove only what no running release reads (contract).

-- One row each: 'store' names this store for ever, 'revision' grows with every change of settings.
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- What users manage ------------------------------------------------------------------------------

CREATE TABLE projects (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  sandbox INTEGER NOT NULL DEFAULT 0,
  clear_search INTEGER NOT NULL DEFAULT 1, -- 0: addresses, subject, tags are not kept in clear
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE streams (
  project INTEGER NOT NULL REFERENCES projects (id),
  name TEXT NOT NULL,
  priority TEXT NOT NULL CHECK (priority IN ('transactional', 'broadcast')),
  in_doubt TEXT NOT NULL CHECK (in_doubt IN ('resend', 'hold', 'fail')),
  lifetime_ms INTEGER NOT NULL,
  retry_first_ms INTEGER NOT NULL,
  retry_cap_ms INTEGER NOT NULL,
  pool TEXT, -- a pool's name; NULL: every enabled relay
  PRIMARY KEY (project, name)
) STRICT, WITHOUT ROWID;

-- Data keys, one or more a project, wrapped by the master key; a destroyed one shreds its rows.
CREATE TABLE data_keys (
  id INTEGER PRIMARY KEY,
  project INTEGER NOT NULL REFERENCES projects (id),
  wrapped BLOB, -- NULL once destroyed
  created_at INTEGER NOT NULL,
  destroyed_at INTEGER
) STRICT;

-- `hash` is SHA-256 of the secret. A vendor secret that a server must recompute (SigV4) derives
-- from the master key and `public_id`; nothing more is stored for it.
CREATE TABLE api_keys (
  id BLOB PRIMARY KEY,
  project INTEGER NOT NULL REFERENCES projects (id),
  public_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  permission TEXT NOT NULL CHECK (permission IN ('full_access', 'sending_access')),
  hash BLOB NOT NULL UNIQUE,
  domain BLOB, -- restricts sending to one domain
  sandbox INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
) STRICT;

-- One owner for a domain name (S57).
CREATE TABLE domains (
  id BLOB PRIMARY KEY,
  project INTEGER NOT NULL REFERENCES projects (id),
  name TEXT NOT NULL UNIQUE,
  status TEXT NOT NULL CHECK (status IN ('pending', 'verified', 'failed')),
  signing TEXT NOT NULL CHECK (signing IN ('sign', 'unsigned')),
  trusted INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  verified_at INTEGER
) STRICT;

CREATE TABLE dkim_keys (
  id BLOB PRIMARY KEY,
  domain BLOB NOT NULL REFERENCES domains (id) ON DELETE CASCADE,
  selector TEXT NOT NULL,
  algorithm TEXT NOT NULL CHECK (algorithm IN ('rsa-sha256', 'ed25519-sha256')),
  key_id INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  public TEXT NOT NULL,
  active INTEGER NOT NULL DEFAULT 1,
  created_at INTEGER NOT NULL,
  UNIQUE (domain, selector)
) STRICT;

CREATE TABLE relays (
  id BLOB PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  host TEXT NOT NULL,
  port INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('enabled', 'draining', 'disabled')),
  settings TEXT NOT NULL, -- JSON: TLS policy, login name, helo, weight, site, limits, …
  key_id INTEGER NOT NULL DEFAULT 0,
  password BLOB, -- sealed
  created_at INTEGER NOT NULL
) STRICT;

-- Who changed what. Append-only, and the engine enforces it.
CREATE TABLE audit (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  kind TEXT NOT NULL,
  object TEXT NOT NULL,
  detail TEXT NOT NULL -- JSON without secrets
) STRICT;
CREATE TRIGGER audit_is_append_only_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE (ABORT, 'the audit table is append-only'); END;
CREATE TRIGGER audit_is_append_only_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE (ABORT, 'the audit table is append-only'); END;

-- Mail ---------------------------------------------------------------------------------------------

-- Sealed content, apart from messages: many messages may share one. `checksum` is BLAKE2b-128 of
-- `sealed`, so that bit rot is told from a wrong key.
-- A content's id is that of the message it was accepted with.
CREATE TABLE contents (
  n INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  project INTEGER NOT NULL,
  key_id INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  checksum BLOB NOT NULL
) STRICT;

-- Large attachment bodies, shared by keyed hash within one project and one day.
CREATE TABLE parts (
  n INTEGER PRIMARY KEY,
  project INTEGER NOT NULL,
  day INTEGER NOT NULL,
  hash BLOB NOT NULL,
  key_id INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  checksum BLOB NOT NULL,
  UNIQUE (project, day, hash)
) STRICT;

-- `alias_of`: one idempotency key was accepted on two nodes; the later message is only a name for
-- the earlier. `return_token` is the random part of the return path (VERP).
CREATE TABLE messages (
  n INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  project INTEGER NOT NULL,
  stream TEXT NOT NULL,
  content BLOB NOT NULL,
  message_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  subject TEXT NOT NULL,
  lists TEXT NOT NULL, -- JSON {to, cc, bcc, reply_to} as shown
  tags TEXT NOT NULL, -- JSON [[name, value], …]
  metadata TEXT NOT NULL, -- JSON {name: value}
  in_doubt TEXT NOT NULL,
  scheduled_at INTEGER,
  expires_at INTEGER NOT NULL,
  dialect TEXT NOT NULL,
  durability TEXT NOT NULL,
  sandbox INTEGER NOT NULL,
  size INTEGER NOT NULL,
  return_token BLOB NOT NULL,
  group_id BLOB,
  api_key BLOB,
  alias_of BLOB,
  UNIQUE (project, id)
) STRICT;
CREATE INDEX messages_sandbox ON messages (project, id) WHERE sandbox = 1;

-- The queue row. `priority` 0 is transactional, 1 broadcast. `term` grows with every claim and
-- fences it; `crashes` counts claims whose process died (poison). `due` is 1 when `not_before` had
-- been reached at the time of writing, 0 while it lies ahead: what waits for its hour is kept out
-- of `recipients_queue`, so that claiming never steps over it, and is moved in when it is due.
CREATE TABLE recipients (
  message BLOB NOT NULL,
  n INTEGER NOT NULL,
  project INTEGER NOT NULL,
  address TEXT NOT NULL,
  destination TEXT NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT,
  priority INTEGER NOT NULL,
  route TEXT NOT NULL,
  site TEXT,
  not_before INTEGER NOT NULL,
  due INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  owner BLOB,
  term INTEGER NOT NULL DEFAULT 0,
  deadline INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0,
  settled_at INTEGER,
  via TEXT,
  PRIMARY KEY (message, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX recipients_queue ON recipients (priority, route, not_before)
  WHERE state = 'queued' AND due = 1;
CREATE INDEX recipients_later ON recipients (not_before) WHERE state = 'queued' AND due = 0;
CREATE INDEX recipients_claimed ON recipients (owner, deadline) WHERE state = 'claimed';

-- `record` is the shared facts (relay, host, TLS, timings, form, body hash) as JSON.
CREATE TABLE attempts (
  message BLOB NOT NULL,
  n INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  transaction_id BLOB, -- the SMTP transaction: the return path names it
  started_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL,
  outcome TEXT NOT NULL, -- delivered, deferred, bounced, failed, in_doubt, abandoned
  detail TEXT NOT NULL, -- JSON: the tagged outcome, with the full answer
  record TEXT NOT NULL,
  form TEXT,
  body_hash BLOB,
  PRIMARY KEY (message, n, attempt)
) STRICT, WITHOUT ROWID;

-- The timeline of a message, and the outbox in `position` order: consumers keep cursors.
CREATE TABLE events (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  message BLOB NOT NULL,
  seq INTEGER NOT NULL,
  recipient INTEGER, -- NULL: of the whole message
  type TEXT NOT NULL,
  at INTEGER NOT NULL,
  data TEXT NOT NULL, -- JSON
  UNIQUE (message, seq)
) STRICT;

CREATE TABLE outbox_cursors (
  consumer TEXT PRIMARY KEY,
  position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
  project INTEGER NOT NULL,
  key TEXT NOT NULL,
  fingerprint BLOB NOT NULL,
  answer BLOB NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (project, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_ends ON idempotency (expires_at);

-- Conservation in constant time: every transaction that moves recipients adds its differences.
-- `state` 'accepted' counts all that were ever accepted. `shard` leaves room for engines where one
-- row would be a bottleneck.
CREATE TABLE tallies (
  project INTEGER NOT NULL,
  state TEXT NOT NULL,
  shard INTEGER NOT NULL DEFAULT 0,
  n INTEGER NOT NULL,
  PRIMARY KEY (project, state, shard)
) STRICT, WITHOUT ROWID;

-- Processes -----------------------------------------------------------------------------------------

CREATE TABLE workers (
  id BLOB PRIMARY KEY,
  role TEXT NOT NULL,
  pid INTEGER NOT NULL,
  boot TEXT NOT NULL,
  dots TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL
) STRICT;

CREATE TABLE leases (
  name TEXT PRIMARY KEY,
  owner BLOB NOT NULL,
  term INTEGER NOT NULL,
  deadline INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA application_id = 1163292786; -- 'EVpr': file(1) and other programs can tell whose this is
INSERT INTO meta (key, value) VALUES ('revision', 1), ('store', lower(hex(randomblob(16))));
INSERT INTO projects (id, name, created_at) VALUES (1, 'default', unixepoch() * 1000);
INSERT INTO streams VALUES
  (1, 'transactional', 'transactional', 'resend', 432000000, 60000, 14400000, NULL),
  (1, 'broadcast', 'broadcast', 'resend', 432000000, 900000, 14400000, NULL);
