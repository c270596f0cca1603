"""The map from httpx's exceptions to failure codes is total: a new exception fails this test before it fails a job."""

import inspect

import aiohttp
import httpx
import pytest

from worker.core.failure import failure
from worker.net import exceptions
from worker.net.exceptions import WIRE, code_of, connect_error, read_error

ALL = [thing for thing in vars(httpx).values() if inspect.isclass(thing) and issubclass(thing, Exception)]


def test_every_exception_of_httpx_is_mapped() -> None:
    assert set(ALL) == set(exceptions._CODES)


@pytest.mark.parametrize("kind", WIRE)
@pytest.mark.parametrize("sent", [True, False])
def test_an_unsent_request_is_never_ambiguous(kind: type[Exception], sent: bool) -> None:
    found = failure(code_of(kind("wire bytes: \x13"), sent=sent), sent=sent)
    assert sent or found.billed == "no"
    assert "wire bytes" not in found.message


def test_every_error_of_reading_becomes_one_of_httpx() -> None:
    kinds = [thing for thing in vars(aiohttp).values() if inspect.isclass(thing) and issubclass(thing, Exception)]
    client_errors = [kind for kind in kinds if issubclass(kind, aiohttp.ClientError)]
    assert len(client_errors) > 10
    for kind in client_errors:
        error = kind.__new__(kind)
        assert isinstance(error, exceptions.READING)
        assert isinstance(read_error(error), httpx.TransportError)
        assert isinstance(connect_error(error, proxied=False), httpx.ConnectError | httpx.ConnectTimeout)
