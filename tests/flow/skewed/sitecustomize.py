"""Python imports this module at its start if the folder is on PYTHONPATH; it shifts the process's clock by SKEW_S
seconds.

It shifts the time of day for Python code; monotonic time stays unchanged.
"""

import datetime
import os
import time
from typing import Any

SKEW_S = float(os.environ.get("SKEW_S", "0"))

_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


def _skewed_time() -> float:
    return _time() + SKEW_S


def _skewed_time_ns() -> int:
    return _time_ns() + int(SKEW_S * 1_000_000_000)


class _Like(type):
    """Instances made by C code, such as a driver's rows, count as datetime too."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _datetime)


class datetime_(_datetime, metaclass=_Like):
    """The class datetime with a shifted clock."""

    __slots__ = ()

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _datetime.fromtimestamp(_skewed_time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.fromtimestamp(_skewed_time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return cls.now()


datetime_.__name__ = datetime_.__qualname__ = datetime_.__module__ = "datetime"
time.time, time.time_ns = _skewed_time, _skewed_time_ns
datetime.datetime = datetime_  # type: ignore[misc]
