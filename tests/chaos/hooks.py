"""The receivers of webhooks of a run, real servers: one healthy, one flaky, one that needs order."""

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Connection, Engine, text

from tests.chaos.jobs import TENANTS
from tests.flow.receivers import register
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver
from worker.webhooks.store import receivers, redeliver

Write = Callable[[Callable[[Connection], Any]], Any]
# Each wait of a schedule gets up to one more second: 20 retries outlast every fault of a run.
SCHEDULE = json.dumps([1, 1, 2, 2, *[3] * 16])
TIMEOUT_S = 3.0
REGISTERED = {
    "usual": {"is_default": True},
    "flaky": {"is_default": False, "timeout_s": TIMEOUT_S},
    "ordered": {"is_default": False, "ordering": "per_key"},
}
# The flaky receiver gets all events of this tenant.
FLAKY_TENANT = "b"


@dataclass(frozen=True, slots=True)
class Heard:
    """One request: the delivery and attempt that it names, its content, and the receiver's answer (None: none).

    `fault` is the reason why its signature did not verify.
    """

    receiver: str
    delivery_id: str
    attempt: int
    webhook_id: str
    tenant: str
    job_id: str
    type: str
    key: str | None
    sequence: int
    fault: str | None
    said: int | None


class Hooks:
    """The receivers of all tenants; `ledger` lists their requests in order of arrival."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._chance = random.Random()  # no seed: the draws depend on the time at which requests arrive
        self._lock = threading.Lock()
        self.away = threading.Event()
        self.ledger: list[Heard] = []
        self.ids: dict[tuple[str, str], str] = {}
        self._servers = {
            name: WebhookReceiver(answer=self._listens(name, says))
            for name, says in (("usual", self._well), ("flaky", self._flaky), ("ordered", self._often_wrong))
        }

    def start(self) -> Self:
        for name, server in self._servers.items():
            secrets = []
            for tenant in TENANTS:
                changes = REGISTERED[name] | {"schedule": SCHEDULE}
                if name == "flaky" and tenant == FLAKY_TENANT:
                    changes["is_default"] = True
                secrets.append(register(self._engine, server.url, name=name, tenant=tenant, **changes))
            server.secrets = tuple(secrets)
            server.start()
        with self._engine.connect() as connection:
            rows = connection.execute(text("SELECT id, tenant, name FROM afterword_receivers"))
            self.ids = {(row.tenant, row.name): str(row.id) for row in rows}
        return self

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()

    def disable(self, write: Write, tenant: str) -> None:
        """Disable a tenant's receivers like an operator; `write` runs each step in its own transaction."""
        for one in self._of(tenant):
            write(lambda connection, one=one: receivers.disable(connection, one))

    def enable(self, write: Write, tenant: str) -> None:
        """Enable the receivers and queue held deliveries, in the steps of `afterword webhooks enable`."""
        for one in self._of(tenant):
            write(lambda connection, one=one: receivers.enable(connection, one))
            while write(lambda connection, one=one: redeliver.resume(connection, one)):
                pass
            after: str | None = ""
            while after is not None:
                after = write(
                    lambda connection, one=one, after=after: redeliver.advance_all(connection, one, after=after)
                )

    def _of(self, tenant: str) -> list[str]:
        return [one for (owner, _), one in sorted(self.ids.items()) if owner == tenant]

    def _listens(
        self, name: str, says: Callable[[], ReceiverAnswer | None]
    ) -> Callable[[Received], ReceiverAnswer | None]:
        def answer(got: Received) -> ReceiverAnswer | None:
            with self._lock:
                said = None if self.away.is_set() else says()
                self.ledger.append(_heard(name, got, said))
            if said is not None and said.status == 200:
                # Too late: the client has closed the connection.
                time.sleep(1.5 * TIMEOUT_S)
            return said

        return answer

    def _well(self) -> ReceiverAnswer | None:
        return ReceiverAnswer(204)

    def _often_wrong(self) -> ReceiverAnswer | None:
        # Other deliveries of the key then arrive while one waits for its next attempt.
        return ReceiverAnswer(500 if self._chance.random() < 0.25 else 204)

    def _flaky(self) -> ReceiverAnswer | None:
        # Failures are rare enough that its breaker, with its pause of half a minute, seldom opens.
        drawn = self._chance.random()
        for most, said in (
            (0.12, ReceiverAnswer(500)),
            (0.16, ReceiverAnswer(503)),
            (0.2, None),
            (0.23, ReceiverAnswer(200)),
        ):
            if drawn < most:
                return said
        return ReceiverAnswer(429, {"retry-after": "1"}) if drawn < 0.25 else ReceiverAnswer(204)


def _heard(name: str, got: Received, said: ReceiverAnswer | None) -> Heard:
    body = json.loads(got.body)
    return Heard(
        receiver=name,
        delivery_id=got.headers["x-afterword-delivery-id"],
        attempt=int(got.headers["x-afterword-attempt"]),
        webhook_id=got.headers["webhook-id"],
        tenant=body["data"]["tenant"],
        job_id=body["data"]["id"],
        type=body["type"],
        key=body["data"]["ordering_key"],
        sequence=body["sequence"],
        fault=got.fault,
        said=None if said is None else said.status,
    )
