"""What the programs of the three hosts are told: pure, from a plan to texts.

Times are the shortest that Patroni allows: its lease of 20 s is how long a dead primary is missed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "API",
    "BOUNCER",
    "DATABASE",
    "ETCD",
    "ETCD_PEER",
    "PASSWORD",
    "PATRONI",
    "PEERS",
    "POSTGRES",
    "PRIMARY",
    "Layout",
    "bouncer",
    "etcd",
    "everpost",
    "haproxy",
    "patroni",
    "primary_url",
]

POSTGRES, PATRONI, ETCD, ETCD_PEER = 5432, 8008, 2379, 2380
BOUNCER = 6432
PRIMARY = 5000
"""Where the balancers take connections to whichever PostgreSQL is the primary."""
API = 8080
"""Of each node, and of the balancers in front of them."""
PEERS = 8090
"""Where nodes leave copies of their journals with one another."""
DATABASE = "everpost"
"""The database, and the role that owns it."""
PASSWORD = "everpost-testbed"
TTL_S, LOOP_S, RETRY_S = 20, 2, 3
MAX_CONNECTIONS = 100


@dataclass(frozen=True, slots=True)
class Layout:
    """Addresses: of the hosts by name, and of the balancers."""

    prefix: str
    hosts: Mapping[str, str]
    balancers: Sequence[str]


def etcd(layout: Layout, name: str, folder: str, *, new: bool) -> list[str]:
    """The command. Debian's 3.4.23 has the lease bug of RELIABILITY.md's finding 1: it is what
    people have, and Patroni from 4.1 on loses nothing with it."""
    address = layout.hosts[name]
    members = ",".join(f"{n}=http://{a}:{ETCD_PEER}" for n, a in layout.hosts.items())
    return [
        *("etcd", "--name", name, "--data-dir", f"{folder}/etcd"),
        *("--listen-peer-urls", f"http://{address}:{ETCD_PEER}"),
        *("--initial-advertise-peer-urls", f"http://{address}:{ETCD_PEER}"),
        *("--listen-client-urls", f"http://{address}:{ETCD},http://127.0.0.1:{ETCD}"),
        *("--advertise-client-urls", f"http://{address}:{ETCD}"),
        *("--initial-cluster", members, "--initial-cluster-token", "everpost"),
        *("--initial-cluster-state", "new" if new else "existing"),
        *("--logger", "zap", "--log-level", "warn"),
    ]


def patroni(layout: Layout, name: str, folder: str, *, bin_dir: str, strict: bool = True) -> str:
    """patroni.yml (JSON is YAML). `strict`: with no standby left a commit waits, it is not silently
    one copy short."""
    address = layout.hosts[name]
    network = f"{layout.prefix}.0/24"
    parameters = {
        "shared_buffers": "32MB",
        "dynamic_shared_memory_type": "mmap",  # in its own folder, which goes with it
        "max_connections": MAX_CONNECTIONS,
        "max_wal_size": "192MB",
        "min_wal_size": "64MB",
        "wal_log_hints": "on",
        "synchronous_commit": "on",
        "deadlock_timeout": "300ms",
        "wal_sender_timeout": "5s",
        "wal_receiver_timeout": "5s",
        "tcp_keepalives_idle": 3,
        "tcp_keepalives_interval": 1,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": 5000,
        "log_checkpoints": "off",
    }
    users = {"superuser": "postgres", "replication": "replicator", "rewind": "rewinder"}
    return json.dumps(
        {
            "scope": "everpost",
            "name": name,
            "restapi": {
                "listen": f"{address}:{PATRONI}",
                "connect_address": f"{address}:{PATRONI}",
            },
            "etcd3": {"hosts": [f"{a}:{ETCD}" for a in layout.hosts.values()]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": LOOP_S,
                    "retry_timeout": RETRY_S,
                    "maximum_lag_on_failover": 1 << 20,
                    "synchronous_mode": True,
                    "synchronous_mode_strict": strict,
                    "synchronous_node_count": 1,
                    "failsafe_mode": True,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "use_slots": True,
                        "parameters": parameters,
                        "pg_hba": [
                            "local all all scram-sha-256",
                            f"host replication replicator {network} scram-sha-256",
                            f"host all all {network} scram-sha-256",
                            "host all all 127.0.0.1/32 scram-sha-256",
                        ],
                    },
                },
                "initdb": [
                    {"encoding": "UTF8"},
                    {"locale": "C.UTF-8"},
                    "data-checksums",
                    {"auth-host": "scram-sha-256"},
                    {"auth-local": "scram-sha-256"},
                ],
            },
            "postgresql": {
                "listen": f"{address}:{POSTGRES}",
                "connect_address": f"{address}:{POSTGRES}",
                "data_dir": f"{folder}/postgres",
                "bin_dir": bin_dir,
                "pgpass": f"{folder}/pgpass",
                "authentication": {
                    kind: {"username": user, "password": PASSWORD} for kind, user in users.items()
                },
                "parameters": {"unix_socket_directories": folder},
            },
        },
        indent=1,
    )


def haproxy(layout: Layout, address: str, socket: str) -> str:
    """Two frontends: the primary as Patroni's health check knows it, and the nodes that say they
    are ready; what may be sent twice is sent to another node. `socket`: where it takes commands."""
    hosts = layout.hosts.items()
    databases = "\n".join(f"  server {n} {a}:{POSTGRES} check port {PATRONI}" for n, a in hosts)
    nodes = "\n".join(f"  server {n} {a}:{API} check" for n, a in hosts)
    return f"""\
global
  maxconn 1000
  nbthread 1
  stats socket {socket} mode 600 level admin
defaults
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout check 400ms
  default-server inter 300ms fastinter 150ms fall 2 rise 1 on-marked-down shutdown-sessions
listen primary
  mode tcp
  bind {address}:{PRIMARY}
  retries 0
  option httpchk
  http-check send meth OPTIONS uri /primary
  http-check expect status 200
{databases}
listen api
  mode http
  bind {address}:{API}
  timeout client 30s
  timeout server 30s
  balance leastconn
  timeout check 250ms
  default-server inter 200ms fastinter 100ms
  option http-buffer-request
  retries 2
  option redispatch 1
  retry-on conn-failure empty-response 503
  acl again method GET HEAD
  acl again req.hdr(Idempotency-Key) -m found
  http-request disable-l7-retry unless again
  option httpchk
  http-check send meth GET uri /health/ready
  http-check expect status 200
{nodes}
"""


def primary_url(layout: Layout, *, user: str = DATABASE, database: str = DATABASE) -> str:
    """By way of either balancer."""
    places = ",".join(f"{address}:{PRIMARY}" for address in layout.balancers)
    return f"postgresql://{user}:{PASSWORD}@{places}/{database}"


def bouncer(layout: Layout, folder: str) -> str:
    """pgbouncer.ini of one host: transactions are pooled, upstream are the balancers."""
    hosts = ",".join(layout.balancers)
    return f"""\
[databases]
{DATABASE} = host={hosts} port={PRIMARY} dbname={DATABASE} user={DATABASE} password={PASSWORD}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {BOUNCER}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 16
max_client_conn = 200
server_connect_timeout = 2
server_login_retry = 1
query_wait_timeout = 10
tcp_keepalive = 1
tcp_user_timeout = 4000
pidfile = {folder}/pgbouncer.pid
logfile = {folder}/pgbouncer.log
"""


def everpost(
    layout: Layout, name: str, *, secret_file: str, pooled: bool, key: str
) -> dict[str, str]:
    """The environment of one node. `pooled`: by way of the host's PgBouncer, which LISTEN cannot
    pass. Waits of minutes are seconds, so that a run sees their ends."""
    direct = primary_url(layout)
    pool = f"postgresql://{DATABASE}:{PASSWORD}@127.0.0.1:{BOUNCER}/{DATABASE}"
    return {
        "EVERPOST_NODE_HOSTNAME": f"{name}.sender.test",
        "EVERPOST_DNS_SERVERS": "127.0.0.1",  # nobody there: no name is asked for
        "EVERPOST_DNS_PORT": "1",
        "EVERPOST_DNS_TIMEOUT_S": "0.5",
        "EVERPOST_FIRST_API_KEY": key,
        "EVERPOST_POSTGRES_URL": pool if pooled else direct,
        "EVERPOST_POSTGRES_LISTEN_URL": direct,
        "EVERPOST_CLUSTER_NAME": name,
        "EVERPOST_CLUSTER_LISTEN": f"{layout.hosts[name]}:{PEERS}",
        "EVERPOST_CLUSTER_SECRET_FILE": secret_file,
        "EVERPOST_NODE_PROCESSES": "2",
        "EVERPOST_NODE_HUNG_S": f"{HUNG_S:g}",
        "EVERPOST_DISPATCH_LEASE_S": f"{LEASE_S:g}",
        "EVERPOST_DELIVERY_CONNECT_S": "2",
        "EVERPOST_DELIVERY_GREET_S": "3",
        "EVERPOST_DELIVERY_MAIL_S": "20",
        "EVERPOST_DELIVERY_RCPT_S": "20",
        "EVERPOST_DELIVERY_DATA_S": "20",
        "EVERPOST_DELIVERY_BLOCK_S": "20",
        "EVERPOST_DELIVERY_DOT_S": "5",
        "EVERPOST_DELIVERY_EJECT_S": "0.5",
        "EVERPOST_DELIVERY_PROBE_S": "2",
    }


LEASE_S = 8.0
"""`dispatch.lease_s`."""
HUNG_S = 12.0
"""`node.hung_s`."""
