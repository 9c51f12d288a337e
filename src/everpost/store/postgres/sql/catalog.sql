-- What users manage. A put replaces the row of that id.

-- name: revision
SELECT value FROM meta WHERE key = 'revision';

-- name: raise_revision
UPDATE meta SET value = value + 1 WHERE key = 'revision';

-- name: add_audit
INSERT INTO audit (at, actor, action, kind, object, detail) VALUES (%s, %s, %s, %s, %s, %s);

-- name: audit_older
SELECT position, at, actor, action, kind, object, detail FROM audit
WHERE position < %(bound)s ORDER BY position DESC LIMIT %(most)s;

-- name: audit_newer
SELECT position, at, actor, action, kind, object, detail FROM audit
WHERE position > %(bound)s ORDER BY position LIMIT %(most)s;

-- name: projects
SELECT id, name, sandbox, created_at, weight, durability FROM projects ORDER BY id;

-- name: put_project
INSERT INTO projects (id, name, sandbox, created_at, weight, durability)
VALUES (%(id)s, %(name)s, %(sandbox)s, %(created_at)s, %(weight)s, %(durability)s)
ON CONFLICT (id) DO UPDATE
SET name = excluded.name, sandbox = excluded.sandbox, weight = excluded.weight,
  durability = excluded.durability;

-- name: streams
SELECT project, name, priority, in_doubt, lifetime_ms, retry_first_ms, retry_cap_ms, pool, weight,
  durability
FROM streams ORDER BY project, name;

-- name: put_stream
INSERT INTO streams (
  project, name, priority, in_doubt, lifetime_ms, retry_first_ms, retry_cap_ms, pool, weight,
  durability
)
VALUES (
  %(project)s, %(name)s, %(priority)s, %(in_doubt)s, %(lifetime_ms)s, %(retry_first_ms)s,
  %(retry_cap_ms)s, %(pool)s, %(weight)s, %(durability)s
)
ON CONFLICT (project, name) DO UPDATE
SET priority = excluded.priority, in_doubt = excluded.in_doubt, lifetime_ms = excluded.lifetime_ms,
  retry_first_ms = excluded.retry_first_ms, retry_cap_ms = excluded.retry_cap_ms,
  pool = excluded.pool, weight = excluded.weight, durability = excluded.durability;

-- name: api_keys
SELECT id, project, public_id, name, permission, hash, created_at, domain, sandbox, expires_at,
  revoked_at
FROM api_keys ORDER BY id;

-- name: put_api_key
INSERT INTO api_keys (
  id, project, public_id, name, permission, hash, created_at, domain, sandbox, expires_at,
  revoked_at
)
VALUES (
  %(id)s, %(project)s, %(public_id)s, %(name)s, %(permission)s, %(hash)s, %(created_at)s,
  %(domain)s, %(sandbox)s, %(expires_at)s, %(revoked_at)s
)
ON CONFLICT (id) DO UPDATE
SET name = excluded.name, permission = excluded.permission, hash = excluded.hash,
  public_id = excluded.public_id, domain = excluded.domain, sandbox = excluded.sandbox,
  expires_at = excluded.expires_at, revoked_at = excluded.revoked_at;

-- name: drop_api_key
DELETE FROM api_keys WHERE id = %s;

-- name: domains
SELECT id, project, name, status, signing, trusted, created_at, verified_at
FROM domains ORDER BY id;

-- name: put_domain
INSERT INTO domains (id, project, name, status, signing, trusted, created_at, verified_at)
VALUES (
  %(id)s, %(project)s, %(name)s, %(status)s, %(signing)s, %(trusted)s, %(created_at)s,
  %(verified_at)s
)
ON CONFLICT (id) DO UPDATE
SET name = excluded.name, status = excluded.status, signing = excluded.signing,
  trusted = excluded.trusted, verified_at = excluded.verified_at;

-- name: drop_domain
DELETE FROM domains WHERE id = %s;

-- name: dkim_keys
SELECT id, domain, selector, algorithm, key_id, sealed, public, active, created_at
FROM dkim_keys ORDER BY id;

-- name: put_dkim_key
INSERT INTO dkim_keys (
  id, domain, selector, algorithm, key_id, sealed, public, active, created_at
)
VALUES (
  %(id)s, %(domain)s, %(selector)s, %(algorithm)s, %(key_id)s, %(sealed)s, %(public)s,
  %(active)s, %(created_at)s
)
ON CONFLICT (id) DO UPDATE
SET selector = excluded.selector, algorithm = excluded.algorithm, key_id = excluded.key_id,
  sealed = excluded.sealed, public = excluded.public, active = excluded.active;

-- name: relays
SELECT id, name, host, port, state, settings, key_id, password, created_at FROM relays ORDER BY id;

-- name: put_relay
INSERT INTO relays (id, name, host, port, state, settings, key_id, password, created_at)
VALUES (
  %(id)s, %(name)s, %(host)s, %(port)s, %(state)s, %(settings)s, %(key_id)s, %(password)s,
  %(created_at)s
)
ON CONFLICT (id) DO UPDATE
SET name = excluded.name, host = excluded.host, port = excluded.port, state = excluded.state,
  settings = excluded.settings, key_id = excluded.key_id, password = excluded.password;

-- name: drop_relay
DELETE FROM relays WHERE id = %s;

-- name: pools
SELECT id, name, settings, created_at FROM pools ORDER BY id;

-- name: put_pool
INSERT INTO pools (id, name, settings, created_at)
VALUES (%(id)s, %(name)s, %(settings)s, %(created_at)s)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, settings = excluded.settings;

-- name: drop_pool
DELETE FROM pools WHERE id = %s;

-- name: routes
SELECT id, name, position, pool, settings, created_at FROM routes ORDER BY position, id;

-- name: put_route
INSERT INTO routes (id, name, position, pool, settings, created_at)
VALUES (%(id)s, %(name)s, %(position)s, %(pool)s, %(settings)s, %(created_at)s)
ON CONFLICT (id) DO UPDATE
SET name = excluded.name, position = excluded.position, pool = excluded.pool,
  settings = excluded.settings;

-- name: drop_route
DELETE FROM routes WHERE id = %s;

-- name: data_keys
SELECT id, project, wrapped FROM data_keys WHERE wrapped IS NOT NULL ORDER BY id;

-- name: add_data_key
INSERT INTO data_keys (project, wrapped, created_at) VALUES (%s, %s, %s) RETURNING id;
