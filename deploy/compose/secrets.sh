#!/bin/sh
# Makes the secrets of compose.yaml in ./secrets and ./.env, once: what is there stays. As root, or
# with a container to change owners: two files must belong to the container's user and be its alone.
set -eu
cd "$(dirname "$0")"
owner=10001:10001
mkdir -p -m 0700 secrets
random() { head -c 32 /dev/urandom | base64 | tr -d '\n'; }
make() { # NAME MODE
    [ -e "secrets/$1" ] && return
    (umask 077 && random > "secrets/$1")
    chmod "$2" "secrets/$1"
}
# Read by two users, in a folder that nobody else can enter.
for name in postgres_superuser postgres_replication postgres_rewind postgres_everpost; do
    make "$name" 0444
done
for name in master_key peers; do
    make "$name" 0600
    if [ "$(id -u)" = 0 ]; then
        chown "$owner" "secrets/$name"
    else
        docker run --rm --volume "$PWD/secrets:/secrets" --user 0 python:3.13-slim-bookworm \
            chown "$owner" "/secrets/$name"
    fi
done
if [ ! -e .env ]; then
    (umask 077 && printf 'EVERPOST_FIRST_API_KEY=%s\n' "$(random | tr '+/' '-_' | tr -d '=')" > .env)
fi
