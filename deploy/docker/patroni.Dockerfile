# PostgreSQL 15 under Patroni 4.1. Build it from the top of the repository:
#   docker build -f deploy/docker/patroni.Dockerfile -t everpost-patroni .
#
# Patroni 3.0 with an etcd that lacks PR 16822 lost acknowledged rows when a host was paused and
# resumed; Patroni 4.1 did not (docs/operate/topologies.md).
FROM postgres:15-bookworm
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv curl \
 && rm -rf /var/lib/apt/lists/*
COPY deploy/patroni/requirements.lock /tmp/requirements.lock
RUN python3 -m venv /opt/patroni \
 && /opt/patroni/bin/python -m pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock
COPY deploy/patroni/patroni.yml /etc/patroni/patroni.yml
COPY --chmod=0755 deploy/patroni/first-start deploy/patroni/start /opt/patroni/bin/
RUN install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/everpost
USER postgres
VOLUME /var/lib/postgresql/everpost
EXPOSE 5432 8008
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8008/liveness"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/patroni/bin/start"]
