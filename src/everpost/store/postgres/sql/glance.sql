-- A look from outside, for commands: nothing is changed.

-- name: glance_server
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
  current_database(), pg_database_size(current_database()),
  to_regclass('alembic_version') IS NOT NULL;

-- name: glance_schema
SELECT version_num FROM alembic_version;

-- name: glance_nodes
SELECT name, address FROM nodes ORDER BY name;

-- name: glance_relays
SELECT host, port, settings FROM relays WHERE state <> 'disabled' ORDER BY id;
