"""State of one delivery attempt in flight; builds its SendResult at the end. Used by `webhooks.net.send`."""

import time
from datetime import UTC, datetime
from typing import Final

import httpx

from worker.chat.rate_limit_headers import retry_after_s
from worker.webhooks.core.outcome import DeliveryErrorCode, ReceiverControl, SendResult, http_code

MAX_READ_BYTES: Final = 64 * 1024
MAX_KEPT_BYTES: Final = 16 * 1024
_KEPT: Final = ("content-type", "date", "retry-after", "server", "webhook-delivery", "x-request-id")
_MAX_HEADER_CHARS: Final = 256


class DeliveryProgress:
    """Collects times, status and body of one attempt; `close` returns the SendResult."""

    def __init__(self) -> None:
        self.sent = False
        self.peer: str | None = None
        self._started_s = time.monotonic()
        self._looking_s: float | None = None
        self._found_s: float | None = None
        self._tls_s: float | None = None
        self._connected_s: float | None = None
        self._head_s: float | None = None
        self._http_status: int | None = None
        self._headers: dict[str, str] = {}
        self._retry_after_s: float | None = None
        self._body = bytearray()
        self._read = 0
        self._ended = False

    def note_lookup(self) -> None:
        """Note that the lookup of the name begins; until now it waited for a free thread of ours."""
        self._looking_s = time.monotonic()

    def note_resolved(self) -> None:
        """Note that the address is known and the first connect begins."""
        self._found_s = time.monotonic()

    def note_tls(self, took_s: float) -> None:
        """Note that a new connection has TLS; the handshake took `took_s`."""
        self._tls_s = took_s

    def note_connected(self) -> None:
        """Note that there is a connection; from now on the receiver may have the request."""
        self.sent = True
        self._connected_s = time.monotonic()

    def note_head(self, response: httpx.Response) -> None:
        """Take the status and the headers of the final response: they decide the outcome."""
        self._head_s = time.monotonic()
        self._http_status = response.status_code
        headers = response.headers
        self._headers = {name: _clean(headers[name]) for name in _KEPT if name in headers}
        asked = {name: headers[name] for name in ("retry-after", "retry-after-ms", "date") if name in headers}
        # A wait of 0 s comes from a date in the past.
        self._retry_after_s = retry_after_s(asked, now=datetime.now(UTC)) or None

    def take(self, piece: bytes) -> None:
        self._read += len(piece)
        self._body += piece[: MAX_KEPT_BYTES - len(self._body)]

    def note_end(self) -> None:
        """Note that the body is complete."""
        self._ended = True

    @property
    def is_full(self) -> bool:
        """The body exceeds MAX_READ_BYTES: the rest is not worth reading, even to keep the connection."""
        return self._read > MAX_READ_BYTES

    def overdue(self) -> DeliveryErrorCode:
        """Return the code of the deadline that has passed: answer, lookup or connect."""
        if self.sent:
            return DeliveryErrorCode.timeout
        return DeliveryErrorCode.dns_timeout if self._found_s is None else DeliveryErrorCode.connect_timeout

    def close(self, broken: DeliveryErrorCode | None) -> SendResult:
        """Return the result. `broken`: the error that ended the attempt; ignored if a status line has arrived."""
        status = self._http_status
        return SendResult(
            sent=self.sent,
            error_code=broken if status is None else http_code(status),
            http_status=status,
            retry_after_s=self._retry_after_s,
            control=_control(self._headers.get("webhook-delivery", "")),
            elapsed_s=time.monotonic() - self._started_s,
            dns_ms=_ms(self._looking_s, self._found_s),
            connect_ms=_ms(self._found_s, self._connected_s),
            tls_ms=_ms(0.0, self._tls_s),
            ttfb_ms=_ms(self._connected_s, self._head_s),
            response_headers=self._headers,
            response_body=bytes(self._body),
            truncated=status is not None and (not self._ended or self._read > len(self._body)),
            peer=self.peer,
        )


def _control(text: str) -> ReceiverControl | None:
    try:
        return ReceiverControl(text.strip().lower())
    except ValueError:
        return None


def _ms(start_s: float | None, end_s: float | None) -> int | None:
    return None if start_s is None or end_s is None else round((end_s - start_s) * 1000)


def _clean(value: str) -> str:
    return "".join(char for char in value if char.isprintable())[:_MAX_HEADER_CHARS]
