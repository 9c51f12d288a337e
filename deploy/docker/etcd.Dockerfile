# etcd as Debian has it. Build it from the top of the repository:
#   docker build -f deploy/docker/etcd.Dockerfile -t everpost-etcd .
#
# Before 3.5.13 (3.4.31) an etcd leader that was paused and resumed revokes leases that are not its
# any more, Patroni's among them (etcd PR 16822): such a one is refused here.
FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends etcd-server etcd-client \
 && dpkg --compare-versions "$(dpkg-query -W -f '${Version}' etcd-server)" ge 3.5.13 \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o nobody -g nogroup -m 0700 /var/lib/everpost-etcd
USER nobody
VOLUME /var/lib/everpost-etcd
EXPOSE 2379 2380
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["etcdctl", "endpoint", "health"]
ENTRYPOINT ["etcd"]
