"""Reads the URL of a Redis behind Sentinel. Its Redis part follows the rules of every Redis URL."""

from collections.abc import Callable
from dataclasses import replace

from afterword.sentinel import is_sentinel, read_sentinels


def by_sentinels(read_redis: Callable[[str], str]) -> Callable[[str], str]:
    """Return a reader that also accepts sentinel:// URLs; `read_redis` reads redis:// and rediss://.

    Both raise ValueError for a bad URL.
    """

    def read(text: str) -> str:
        if not is_sentinel(text):
            return read_redis(text)
        sentinels = read_sentinels(text)
        return replace(sentinels, redis_url=read_redis(sentinels.redis_url)).text()

    return read
