"""Plays the schedule of faults: breaks a part, waits, and repairs it. Faults of one part never overlap."""

import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from redis import RedisError
from sqlalchemy import text

from tests.chaos.jobs import TENANTS
from tests.chaos.parts import Parts
from tests.chaos.schedule import Fault
from tests.pool.workers import Child
from worker.jobs.store import endpoints
from worker.store.engine import open_engine

WEATHER = {
    "endpoint slow": {"latency_s": 2.5},
    "endpoint answers 500": {"status": 500},
    "endpoint answers 429": {"status": 429, "retry_after": 1},
    "endpoint resets after reading": {"no_answer": True, "reset": True},
    "endpoint answers 401": {"status": 401},
    "endpoint cuts its answers": {"cut_at": 60, "reset": True},
}
TERM_S = 60.0
READY_S = 120.0


@dataclass(frozen=True, slots=True)
class Done:
    """A fault that has ended, with its start and end in seconds of time.time()."""

    name: str
    began: float
    ended: float


class Faults:
    """Plays a schedule in threads; `done` lists the ended faults."""

    def __init__(self, parts: Parts, schedule: list[Fault]) -> None:
        self._parts, self._schedule = parts, schedule
        self._stopping = threading.Event()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._threads: list[threading.Thread] = []
        self.done: list[Done] = []
        self.failed: list[str] = []
        self._player = threading.Thread(target=self._play, name="faults")

    def start(self) -> None:
        self._player.start()

    def stop(self) -> None:
        """Repair every part and return when all are repaired."""
        self._stopping.set()
        for thread in (self._player, *self._threads):
            if thread.ident is not None:
                thread.join()

    def join(self) -> None:
        self._player.join()
        self.stop()

    def _play(self) -> None:
        began = time.monotonic()
        for fault in self._schedule:
            if self._stopping.wait(max(0.0, began + fault.at_s - time.monotonic())):
                return
            thread = threading.Thread(target=self._do, args=(fault,), name=fault.kind.name)
            self._threads.append(thread)
            thread.start()

    def _do(self, fault: Fault) -> None:
        place = int(fault.chance * len(self._parts.fleet))
        part = f"worker {place}" if fault.kind.part == "worker" else fault.kind.part
        with self._held(part):
            # If the machine is too slow for the whole schedule, the rest of it is skipped.
            if self._stopping.is_set():
                return
            began = time.time()
            try:
                self._steps(fault, place)()
            except Exception as error:
                self.failed.append(f"{fault.kind.name}: {type(error).__name__}: {error}")
            self.done.append(Done(fault.kind.name, began, time.time()))
            if fault.kind.part in ("worker", "fleet"):
                # A worker that is killed again before it has started would test nothing.
                self._await_fleet()

    def _await_fleet(self) -> None:
        give_up = time.monotonic() + READY_S
        while time.monotonic() < give_up and not self._stopping.wait(0.1):
            if all(" ready." in child.text() or child.ended() for child in self._parts.fleet):
                return

    def _held(self, part: str) -> "threading.Lock | _All":
        if part == "fleet":
            return _All([self._locks[f"worker {place}"] for place in range(len(self._parts.fleet))])
        return self._locks[part]

    def _last(self, fault: Fault) -> None:
        self._stopping.wait(fault.lasts_s)

    def _steps(self, fault: Fault, place: int) -> Callable[[], None]:
        """Return the function that breaks and repairs a part for this kind of fault."""
        name = fault.kind.name
        if name in WEATHER:
            return lambda: self._weather(fault)
        return {
            "worker killed": lambda: self._kill(fault, [place]),
            "all workers killed": lambda: self._kill(fault, list(range(len(self._parts.fleet)))),
            "worker stopped, less than a lease": lambda: self._freeze(fault, self._parts.fleet[place]),
            "worker stopped, longer than a lease": lambda: self._freeze(fault, self._parts.fleet[place]),
            "worker restarted": lambda: self._restart(place),
            "redis flushed": self._flush,
            "redis restarted, log kept": lambda: self._restart_redis(fault, wipe=False),
            "redis restarted, all lost": lambda: self._restart_redis(fault, wipe=True),
            "redis frozen": lambda: self._freeze_redis(fault),
            "redis connections killed": self._kill_clients,
            "database restarted, fast": lambda: self._restart_database(fault, "fast"),
            "database restarted, immediate": lambda: self._restart_database(fault, "immediate"),
            "database connections killed": self._kill_backends,
            "database locked, longer than a lease": lambda: self._lock(fault),
            "endpoint refuses connections": lambda: self._refuse(fault),
            "endpoint paused by an operator": lambda: self._pause(fault),
            "receivers hang up": lambda: self._hang_up(fault),
            "receivers disabled, then enabled": lambda: self._disable(fault),
        }[name]

    def _kill(self, fault: Fault, places: list[int]) -> None:
        for place in places:
            self._parts.fleet[place].kill()
        self._last(fault)
        for place in places:
            self._parts.fleet[place] = self._parts.start_worker()

    def _freeze(self, fault: Fault, child: Child) -> None:
        child.signal(signal.SIGSTOP)
        self._last(fault)
        child.signal(signal.SIGCONT)

    def _restart(self, place: int) -> None:
        child = self._parts.fleet[place]
        child.signal(signal.SIGTERM)
        try:
            child.wait(TERM_S)
        except Exception:
            self.failed.append(f"worker restarted: {child.log.name} did not end within {TERM_S} s of SIGTERM")
            child.kill()
        self._parts.fleet[place] = self._parts.start_worker()

    def _flush(self) -> None:
        began = time.time()
        self._parts.redis.flushall()
        self._parts.losses.append((began, time.time()))

    def _restart_redis(self, fault: Fault, *, wipe: bool) -> None:
        server, began = self._parts.server, time.time()
        server.stop(kill=wipe)
        if wipe:
            shutil.rmtree(server.folder / "appendonlydir", ignore_errors=True)
            (server.folder / "appendonly.aof").unlink(missing_ok=True)
        self._last(fault)
        server.start()
        if wipe:
            self._parts.losses.append((began, time.time()))

    def _freeze_redis(self, fault: Fault) -> None:
        child = self._parts.server.child
        assert child is not None
        child.send_signal(signal.SIGSTOP)
        self._last(fault)
        child.send_signal(signal.SIGCONT)

    def _kill_clients(self) -> None:
        for kind in ("normal", "pubsub"):
            try:
                self._parts.redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            except RedisError as error:
                self.failed.append(f"CLIENT KILL: {error}")

    def _restart_database(self, fault: Fault, how: str) -> None:
        self._parts.database.stop(how)
        self._last(fault)
        self._parts.database.start()

    def _kill_backends(self) -> None:
        end_all = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        self._parts.patiently(lambda: self._parts.rows(end_all))

    def _lock(self, fault: Fault) -> None:
        """Lock the workers' rows, as a person with a console may: no lease can be renewed and no job claimed."""
        console = open_engine(self._parts.database.url, reading=True)
        try:
            with self._parts.patiently(console.connect) as connection:
                connection.execute(text("LOCK TABLE afterword_workers IN ACCESS EXCLUSIVE MODE"))
                self._last(fault)
        finally:
            console.dispose()

    def _refuse(self, fault: Fault) -> None:
        self._parts.fake.stop()
        self._last(fault)
        self._parts.fake.start()

    def _pause(self, fault: Fault) -> None:
        self._parts.write(lambda connection: endpoints.pause(connection, "default"))
        self._last(fault)
        self._parts.write(lambda connection: endpoints.resume(connection, "default"))

    def _hang_up(self, fault: Fault) -> None:
        self._parts.hooks.away.set()
        self._last(fault)
        self._parts.hooks.away.clear()

    def _disable(self, fault: Fault) -> None:
        hooks, tenant = self._parts.hooks, TENANTS[int(fault.chance * len(TENANTS))]
        hooks.disable(self._parts.write, tenant)
        self._last(fault)
        hooks.enable(self._parts.write, tenant)

    def _weather(self, fault: Fault) -> None:
        self._parts.fake.endpoint.weather = WEATHER[fault.kind.name]
        self._last(fault)
        self._parts.fake.endpoint.weather = {}


class _All:
    """Several locks as one, taken in order."""

    def __init__(self, locks: list[threading.Lock]) -> None:
        self._locks = locks

    def __enter__(self) -> None:
        for lock in self._locks:
            lock.acquire()

    def __exit__(self, *_: object) -> None:
        for lock in self._locks:
            lock.release()
