"""Create the connection pool of a Redis address. Behind Sentinel, each connection opens to the present primary.

Each new connection asks the sentinels first. A failover ends the connections to the former primary, and the next
connections go to the new primary. Callers see a normal outage.
"""

from collections.abc import Iterator
from typing import Any

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

from afterword.sentinel import Sentinels, is_sentinel, read_sentinels
from worker.queue.connections import RedisPool

# A sentinel answers at once or not at all. After this time the next sentinel is asked.
PATIENCE_S = 1.0


class UnknownPrimary(RedisConnectionError):
    """Every sentinel has answered, and none knows a primary of this name. Waiting does not help."""


class PrimaryWatch:
    """Asks the sentinels of one address for the primary. Safe to use from any thread."""

    def __init__(self, sentinels: Sentinels) -> None:
        self._sentinels = sentinels
        self._clients = [self._client(host, port) for host, port in sentinels.hosts]
        # The index of the sentinel that answered last; it is asked first.
        self._first = 0

    def primary(self) -> tuple[str, int]:
        """Return host and port of the primary. Raises RedisConnectionError with the answer of each sentinel."""
        answers, unknown = [], 0
        for step in range(len(self._clients)):
            place = (self._first + step) % len(self._clients)
            try:
                answer = self._ask(place, "GET-MASTER-ADDR-BY-NAME")
            except ResponseError as error:
                answers.append(f"{self._address_of(place)} answers {error}")
                unknown += "unknown command" in str(error).lower()
            except RedisError as error:
                answers.append(str(error))
            else:
                if answer:
                    self._first = place
                    return answer[0].decode(), int(answer[1])
                answers.append(f"{self._address_of(place)} knows no {self._sentinels.primary!r}")
                unknown += 1
        kind = UnknownPrimary if unknown == len(self._clients) else RedisConnectionError
        raise kind(f"no sentinel names the primary {self._sentinels.primary!r}: {'; '.join(answers)}")

    def servers(self) -> Iterator[tuple[str, int]]:
        """Yield host and port of the primary and of each of its replicas. Raises RedisError."""
        yield self.primary()
        for replica in self._ask(self._first, "REPLICAS"):
            facts = dict(zip(replica[::2], replica[1::2], strict=True))
            yield facts[b"ip"].decode(), int(facts[b"port"])

    def close(self) -> None:
        """Close the connections to the sentinels."""
        for client in self._clients:
            client.close()

    def _ask(self, place: int, question: str) -> Any:
        client: Any = self._clients[place]
        # Two words: redis-py parses the answer to a joined name such as "SENTINEL GET-MASTER-ADDR-BY-NAME".
        return client.execute_command("SENTINEL", question, self._sentinels.primary)

    def _client(self, host: str, port: int) -> "Redis":
        login = {"username", "password", "db"}
        given = parse_url(self._sentinels.redis_url)  # type: ignore[no-untyped-call]
        options = {name: value for name, value in given.items() if name not in login}
        options |= {
            "host": host,
            "port": port,
            "username": self._sentinels.username,
            "password": self._sentinels.password,
            "socket_timeout": PATIENCE_S,
            "socket_connect_timeout": PATIENCE_S,
            # An idle connection may be closed. A repeated question is harmless.
            "retry": Retry(NoBackoff(), 1),
        }
        return Redis.from_pool(RedisPool(**options))

    def _address_of(self, place: int) -> str:
        return "{}:{}".format(*self._sentinels.hosts[place])


def pool_of(url: str, **options: Any) -> RedisPool:
    """Return the pool of an address: redis://, rediss:// or sentinel://. `options` as for `RedisPool`."""
    if not is_sentinel(url):
        return RedisPool.from_url(url, **options)
    sentinels = read_sentinels(url)
    return RedisPool.from_url(sentinels.redis_url, watch=PrimaryWatch(sentinels), **options)
