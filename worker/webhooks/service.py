"""The webhook parts of a worker process: a second writer, the client, direct nudges, the dispatch of deliveries.

The writer is a second one, because a transaction that ends jobs locks the counter of finished jobs and then receivers,
and one that ends deliveries locks receivers: in one transaction they would deadlock.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from urllib.parse import urlsplit

import structlog
from redis import Redis, RedisError
from sqlalchemy import Connection, Engine

from afterword.sentinel import is_sentinel, read_sentinels
from worker.pool.liveness import Liveness
from worker.queue.nudges import nudge
from worker.queue.pusher import Pusher
from worker.settings import Settings
from worker.store.group_commit import Batcher
from worker.store.orphans import Orphans
from worker.store.transitions import ClaimRequest
from worker.webhooks.dispatcher import PRIORITY, QUEUE, DeliveryDispatcher
from worker.webhooks.net.address_policy import HTTP_PORT, HTTPS_PORT, Policy, policy
from worker.webhooks.net.own_servers import OwnServers, Server
from worker.webhooks.net.send import WebhookClient
from worker.webhooks.net.url import target_fault
from worker.webhooks.store import claim as store_claim
from worker.webhooks.store import expire
from worker.webhooks.store import record as store_record
from worker.webhooks.store.claim import DeliveryClaim
from worker.webhooks.store.record import DeliveryRecord, RecordedDelivery

# `announce` stops adding nudges when Redis holds this many for each slot of this process.
NUDGES_A_SLOT = 4
REDIS_PORT, POSTGRESQL_PORT = 6379, 5432

log = structlog.get_logger()


def policy_of(settings: Settings) -> Policy:
    """Return the address policy of the operator's settings."""
    return policy(
        allow_http=settings.webhook_allow_http,
        allow_cidrs=settings.webhook_allow_cidrs,
        deny_cidrs=settings.webhook_deny_cidrs,
        ports=settings.webhook_ports,
        nat64=settings.webhook_nat64,
    )


def own_servers(engine: Engine, settings: Settings) -> list[Server]:
    """Return the servers that this service itself connects to; a Unix socket has no address."""
    found = [*_database_servers(engine), *_redis_servers(settings.redis_url)]
    for endpoint in settings.endpoints.values():
        for url in (endpoint.url, endpoint.proxy):
            standard = HTTPS_PORT if (url or "").startswith("https:") else HTTP_PORT
            found += _servers(url, standard, is_endpoint=True)
    return found


def _database_servers(engine: Engine) -> list[Server]:
    if engine.dialect.name != "postgresql":
        return []
    # The driver's form: several hosts are "a,b", their ports "1,2", or one port for all.
    _, arguments = engine.dialect.create_connect_args(engine.url)
    hosts, ports = str(arguments.get("host") or "").split(","), str(arguments.get("port") or POSTGRESQL_PORT).split(",")
    return [
        Server(host, int(ports[place % len(ports)] or POSTGRESQL_PORT))
        for place, host in enumerate(hosts)
        if host and not host.startswith("/")
    ]


def _redis_servers(url: str | None) -> list[Server]:
    if url is not None and is_sentinel(url):
        return [Server(host, port) for host, port in read_sentinels(url).hosts]
    return _servers(url, REDIS_PORT)


def watched_servers(redis: Redis) -> list[Server]:
    """Return the current primary and replicas of the sentinels. Raises OSError."""
    watch = getattr(redis.connection_pool, "watch", None)
    try:
        return [Server(host, port) for host, port in watch.servers()] if watch else []
    except RedisError as error:
        raise OSError(str(error)) from error


def _servers(url: str | None, standard: int, *, is_endpoint: bool = False) -> list[Server]:
    parts = urlsplit(url or "")
    return [Server(parts.hostname, parts.port or standard, is_endpoint)] if parts.hostname else []


class WebhookService:
    """One per process. `start` and `close` are called by the worker process."""

    def __init__(self, engine: Engine, redis: Redis, settings: Settings, liveness: Liveness) -> None:
        self._engine, self._redis, self._settings = engine, redis, settings
        # Apart: a claim and a record each lock receivers in the order of the ids; both in one transaction would not.
        self.batcher = Batcher(
            engine,
            max_items=settings.writer_batch,
            apart=True,
            name="webhook-writer",
            turned=liveness.turns("webhook-writer"),
        )
        self._dispatch = DeliveryDispatcher(engine, redis, window_s=settings.window_s, slots=settings.webhook_slots)
        self._announcer = Pusher(
            redis, QUEUE, room=NUDGES_A_SLOT * settings.webhook_slots, turned=liveness.turns(f"announce-{QUEUE}")
        )
        self._client: WebhookClient | None = None
        self.orphans = Orphans(engine, "delivery", held=expire.held, give_back=expire.give_back)

    @property
    def client(self) -> WebhookClient:
        """The client with the address guard; open while the pool runs."""
        assert self._client is not None
        return self._client

    def start(self) -> None:
        """Start the writer and the nudges."""
        self.batcher.start()
        self._announcer.start()

    def close(self, *, timeout_s: float) -> bool:
        """Commit the waiting writes; False if that took longer than `timeout_s`."""
        self._announcer.stop()
        return self.batcher.close(timeout_s=timeout_s)

    async def open_client(self) -> None:
        """Open the client; a thread reads its certificates, because that would block the loop."""
        own = OwnServers(own_servers(self._engine, self._settings), moving=partial(watched_servers, self._redis))
        self._client = await asyncio.to_thread(
            WebhookClient,
            policy_of(self._settings),
            own=own,
            ca_file=self._settings.webhook_ca_file,
            proxy=self._settings.webhook_egress_proxy,
        )

    async def close_client(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            await self._client.aclose()

    def claim(self, connection: Connection, claim_requests: Sequence[ClaimRequest]) -> list[DeliveryClaim | None]:
        """Claim deliveries for this process, within its slots: see `webhooks.store.claim`."""
        return store_claim.claim(connection, claim_requests, slots=self._settings.webhook_slots)

    def record(self, connection: Connection, records: Sequence[DeliveryRecord]) -> list[RecordedDelivery]:
        """Record attempts of this process: see `webhooks.store.record`."""
        return store_record.record(connection, records, slots=self._settings.webhook_slots)

    def address_fault(self, url: str) -> str | None:
        """Return the reason why a job may not name this URL, as the end of a sentence, or None."""
        if not self._settings.webhook_allow_urls:
            return 'is not taken: name a receiver with {"to": …}, or allow addresses with AFTERWORD_WEBHOOK_ALLOW_URLS'
        fault = target_fault(url, policy_of(self._settings))
        return None if fault is None else f"is no address for webhooks. {fault}"

    def announce(self, delivery_ids: Iterable[str]) -> None:
        """Push nudges for deliveries that may start now; from any thread."""
        self._announcer.put((PRIORITY, nudge(delivery_id, 1)) for delivery_id in delivery_ids)

    def fill(self) -> float | None:
        """Top up the window of deliveries, as the leader; return the seconds until the next delivery is due."""
        return self._dispatch.fill()

    def look_after(self) -> None:
        """End expired deliveries and advance recoveries, as the leader."""
        self._dispatch.look_after()

    def take_back(self) -> int:
        """Queue a batch of deliveries of lost workers again; return their number."""
        with self._engine.begin() as connection:
            return expire.take_back(connection)
