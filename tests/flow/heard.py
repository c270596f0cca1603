"""A real worker's SQL statements and Redis commands, recorded for the tests that count them."""

import json
import os
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import ConnectionError as NotConnected

from tests.counts import Cost
from tests.pool.workers import until
from worker.jobs import intake_list
from worker.queue import nudges

COUNTED = Path(__file__).parents[1] / "counted"
# Our scripts by name; clients call them by digest.
SCRIPTS = {"TAKE": intake_list._TAKE, "PUSH": nudges._PUSH, "POP": nudges.POP}
_NAMES = {sha1(text.encode()).hexdigest(): name for name, text in SCRIPTS.items()}
QUEUES = ("intake", "chat.run", "webhooks")
# Commands of the connection itself: when it opens, and after a pause.
OF_A_CONNECTION = {"HELLO", "CLIENT", "SCRIPT", "PING"}
# The commands of a queue as letters, in order.
LETTERS = {"TAKE": "t", "DEL": "d", "BLMOVE": "w", "LLEN": "l", "PUSH": "p", "POP": "o", "BRPOP": "r"}


def counted(file: Path) -> dict[str, str]:
    """Return the variables that make a Python process record its SQL, see tests/counted/sitecustomize.py."""
    path = [str(COUNTED), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"COUNTED": str(file), "PYTHONPATH": os.pathsep.join(path)}


def without_the_clock(letters: str) -> str:
    """Return a queue's commands without those of a doorbell that timed out after one or five seconds.

    An entry for the intake is `tdtw`: TAKE, DEL after the commit, TAKE until the list is empty, BLMOVE waits. A timeout
    adds `l…ttw`: LLEN of the lists, TAKE, and again from the start; the entry may arrive in the middle. A nudge is
    `por`: PUSH, POP, BRPOP waits; a timeout adds `or`.
    """
    letters = re.sub("l+(t(?=t))?", "", letters)
    letters = re.sub("(?<!d)tw", "", letters)
    return re.sub("(?<![po])or", "", letters)


class Statement(NamedTuple):
    """A call of the database driver: the statement and its number of parameter sets."""

    text: str
    sets: int


class Transaction(NamedTuple):
    """A transaction of one thread; `thread` is the thread's name."""

    thread: str
    statements: tuple[Statement, ...]

    @property
    def cost(self) -> Cost:
        return Cost(len(self.statements), sum(one.sets for one in self.statements))

    @property
    def distinct(self) -> int:
        """The number of different statements."""
        return len({one.text for one in self.statements})


def transactions(file: Path) -> list[Transaction]:
    """Return the transactions that a counted process has committed or rolled back so far."""
    ended: list[Transaction] = []
    open_: defaultdict[int, list[Statement]] = defaultdict(list)
    for line in file.read_text().splitlines():
        thread, number, kind, text, sets = json.loads(line)
        if kind == "statement":
            open_[number].append(Statement(text, sets))
        elif statements := open_.pop(number, []):
            ended.append(Transaction(thread, tuple(statements)))
    return ended


class Command(NamedTuple):
    """A command that Redis executed for a client, and its queue."""

    name: str
    queue: str | None


class Ear:
    """Records the commands that other clients than the test send to a Redis server (MONITOR)."""

    def __init__(self, url: str) -> None:
        self.commands: list[Command] = []
        self._client = Redis.from_url(url, socket_timeout=None)
        self._monitor = self._client.monitor()
        self._own = set[str]()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def ignore(self, client: Redis) -> None:
        """Do not count the commands of this client, which has one connection."""
        info = client.client_info()
        self._own.add(str(info["addr"]))

    def resting(self) -> bool:
        """Return whether the worker waits at each doorbell, so that all its commands have arrived."""
        last = {command.queue: command.name for command in tuple(self.commands) if command.name in LETTERS}
        return last.get("intake") == "BLMOVE" and {last.get("chat.run"), last.get("webhooks")} == {"BRPOP"}

    def await_rest(self) -> None:
        until(self.resting, what=f"the doorbells; the last commands: {self.commands[-20:]}")

    def counts(self, *, since: int) -> Counter[str]:
        """Return the commands from place `since` on, such as `TAKE intake`; at that place the worker must have been
        idle.

        Commands caused by a timeout are left out.
        """
        asked = [one for one in self.commands[since:] if one.name not in OF_A_CONNECTION]
        found = Counter(f"{name} {queue}" for name, queue in asked)
        for queue in QUEUES:
            letters = "".join(LETTERS.get(one.name, "") for one in asked if one.queue == queue)
            for name, letter in LETTERS.items():
                found[f"{name} {queue}"] -= letters.count(letter) - without_the_clock(letters).count(letter)
        return +found

    def _listen(self) -> None:
        try:
            for heard in self._monitor.listen():
                self._note(heard)
        except (NotConnected, ValueError, OSError):
            return  # the test is over

    def _note(self, heard: Any) -> None:
        address = f"{heard['client_address']}:{heard['client_port']}"
        if heard["client_type"] == "lua" or address in self._own:
            return
        name, *words = heard["command"].split(" ")
        if name.upper() == "EVALSHA":
            name = _NAMES.get(words[0], words[0])
        queue = next((queue for queue in QUEUES if any(queue in word for word in words)), None)
        self.commands.append(Command(name.upper(), queue))

    def close(self) -> None:
        self._monitor.connection.disconnect()
        self._thread.join(10)
        self._client.close()


@contextmanager
def hearing(url: str) -> Iterator[Ear]:
    ear = Ear(url)
    with ear._monitor:
        ear._thread.start()
        try:
            yield ear
        finally:
            ear.close()
