"""Reads the address of a Redis behind Sentinel: what it says of Redis is read as the address of any Redis is."""

from collections.abc import Callable
from dataclasses import replace

from afterword.sentinel import is_sentinel, read_sentinels


def by_sentinels(read_redis: Callable[[str], str]) -> Callable[[str], str]:
    """Return what reads both: `read_redis` reads redis:// and rediss://, and raises ValueError as this does."""

    def read(text: str) -> str:
        if not is_sentinel(text):
            return read_redis(text)
        sentinels = read_sentinels(text)
        return replace(sentinels, redis_url=read_redis(sentinels.redis_url)).text()

    return read
