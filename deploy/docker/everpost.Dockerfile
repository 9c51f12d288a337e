# Everpost. Build it from the top of the repository:
#   docker build -f deploy/docker/everpost.Dockerfile -t everpost .
FROM python:3.13-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /opt/everpost \
 && /opt/everpost/bin/python -m pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /opt/everpost/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --no-index .

FROM python:3.13-slim-bookworm
COPY --from=build /opt/everpost /opt/everpost
# A number of its own, so that volumes and secrets can be given to it.
RUN groupadd --gid 10001 everpost \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin everpost \
 && install -d -o 10001 -g 10001 -m 0700 /data
USER 10001:10001
ENV PATH=/opt/everpost/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    EVERPOST_NODE_DATA=/data \
    EVERPOST_HTTP_LISTEN=0.0.0.0:8080
# Journal, dot logs and (on one machine) the store: a volume, or it is lost with the container.
VOLUME /data
EXPOSE 8080
# The API alone has an address to ask; whoever runs single roles says --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]
# SIGTERM ends it after the work in hand. Give it http.linger_s + node.drain_s + 15 seconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["everpost"]
CMD ["serve"]
