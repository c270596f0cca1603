"""A real Redis behind real Sentinels on free ports: a primary, a replica, three Sentinels; failovers on demand."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis, RedisError

from tests.pool.workers import until
from worker.dev.redis import RedisServer, find_server, free_port

NAME = "mymaster"


@dataclass
class Behind:
    """The servers and Sentinels; `url` is a value for AFTERWORD_REDIS_URL."""

    folder: Path
    sentinels: int = 3
    password: str = ""
    children: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.servers = [RedisServer(folder=self.folder / f"redis-{number}") for number in range(2)]
        self.ports = [free_port() for _ in range(self.sentinels)]

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def url(self) -> str:
        query = f"?sentinel_password={self.password}" if self.password else ""
        return f"sentinel://{self.hosts}/{NAME}/0{query}"

    @property
    def celery_url(self) -> str:
        """The address in the form of Celery's own transport, with `master_name` in its options."""
        return ";".join(f"sentinel://127.0.0.1:{port}/0" for port in self.ports)

    def start(self) -> "Behind":
        primary, replica = (server.start() for server in self.servers)
        with Redis.from_url(replica.url) as client:
            client.replicaof("127.0.0.1", str(primary.port))
        for number, port in enumerate(self.ports):
            self._watch(number, port, primary.port)
        until(self._is_whole, what="the replica and the other sentinels at every sentinel")
        return self

    def primary_port(self) -> int:
        """Return the primary's port from the first Sentinel."""
        return int(self._asked(self.ports[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def fail_over(self) -> None:
        """Promote the replica; return when the old primary is its replica."""
        before = self.primary_port()
        until(lambda: self._asked(self.ports[0], "SENTINEL", "FAILOVER", NAME), what="the order")
        self.await_change(before)
        (old,) = (server for server in self.servers if server.port == before)
        with Redis.from_url(old.url) as client:
            until(lambda: client.info("replication")["role"] == "slave", what="the old primary is a replica")

    def kill_primary(self) -> None:
        """Kill the primary; return when the replica is promoted."""
        before = self.primary_port()
        (old,) = (server for server in self.servers if server.port == before)
        old.stop(kill=True)
        self.await_change(before)

    def await_change(self, before: int) -> None:
        until(lambda: self.primary_port() != before, what="another primary")

    def remove(self) -> None:
        for child in self.children:
            child.kill()
            child.wait(10)
        for server in self.servers:
            server.remove()

    def _watch(self, number: int, port: int, primary: int) -> None:
        path = self.folder / f"sentinel-{number}.conf"
        lines = [
            f"port {port}", "bind 127.0.0.1", f'dir "{self.folder}"', "protected-mode no",
            f"sentinel monitor {NAME} 127.0.0.1 {primary} {self.sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {NAME} 1000", f"sentinel failover-timeout {NAME} 3000",
        ]  # fmt: skip
        if self.password:
            lines += [f"requirepass {self.password}", f"sentinel sentinel-pass {self.password}"]
        path.write_text("".join(f"{line}\n" for line in lines))
        with (self.folder / f"sentinel-{number}.log").open("wb") as log:
            self.children.append(
                subprocess.Popen([find_server(), str(path), "--sentinel"], stdout=log, stderr=log, cwd=self.folder)
            )

    def _is_whole(self) -> bool:
        for port in self.ports:
            try:
                pairs = self._asked(port, "SENTINEL", "MASTER", NAME)
            except RedisError:
                return False
            facts = dict(zip(pairs[::2], pairs[1::2], strict=True))
            if (facts["num-slaves"], facts["num-other-sentinels"]) != ("1", str(self.sentinels - 1)):
                return False
        # A replica cannot be promoted before its primary has answered it.
        with Redis.from_url(self.servers[1].url) as client:
            return client.info("replication")["master_link_status"] == "up"

    def _asked(self, port: int, *words: str) -> list[str]:
        with Redis(port=port, password=self.password or None, decode_responses=True, protocol=2) as client:
            client.response_callbacks.clear()
            try:
                return client.execute_command(*words)
            except RedisError as error:
                if "NOGOODSLAVE" in str(error) or "INPROG" in str(error):
                    return []
                raise
