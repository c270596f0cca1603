"""Outages of the fake endpoint: each function starts one, and `mend` ends it."""

from collections.abc import Callable

from tests.flow.system import System
from worker.dev.fake.presets import QUOTA
from worker.dev.fake.script import Script

Switch = Callable[[System], None]


def refuse_key(system: System) -> None:
    system.fake.endpoint.outage = Script(status=401)


def exhaust_quota(system: System) -> None:
    system.fake.endpoint.outage = Script(status=429, error=QUOTA)


def fail(system: System) -> None:
    system.fake.endpoint.outage = Script(status=500)


def close_port(system: System) -> None:
    system.fake.stop()


def mend(system: System) -> None:
    system.fake.endpoint.outage = None
    if system.fake.is_stopped:
        system.fake.start()
