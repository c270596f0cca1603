"""Keep memory small: one malloc arena, and a garbage collector that skips the objects loaded at start."""

import contextlib
import ctypes
import gc

M_ARENA_MAX = -8


def keep_one_arena() -> None:
    """Make all threads share one arena of glibc's malloc. Separate arenas would each keep the memory of their peak.

    The GIL keeps the threads apart anyway. (mallopt(3), M_ARENA_MAX; other C libraries do not have this option.)
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def collect_seldom() -> None:
    """Exclude the loaded objects, because they stay, and collect less often, because calls make many objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
