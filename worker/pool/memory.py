"""How a worker process keeps memory: one arena of malloc, and a garbage collector that walks new objects only."""

import contextlib
import ctypes
import gc

M_ARENA_MAX = -8


def keep_one_arena() -> None:
    """Have all threads share one arena of glibc's malloc: each thread's own would keep what it needed once.

    Python's lock keeps them apart anyway. (mallopt(3), M_ARENA_MAX; other C libraries do not know it.)
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def collect_seldom() -> None:
    """Leave alone what was loaded, which stays for good, and collect less often: calls make objects by the hundred."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
