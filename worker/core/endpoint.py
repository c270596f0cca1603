"""One configured endpoint as plain values: `settings` builds it, the HTTP calls and the request rules read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Validation = Literal["document", "openai", "shape"]
Upstream = Literal["as_asked", "stream"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible chat-completions endpoint: its address, our credentials and the deadlines of a call.

    `url` is the full URL for the POST. The deadlines are in seconds: `connect_s` until the connection is open,
    `first_byte_s` from the request to the first byte of the answer, `idle_s` between two pieces of *data* (SSE
    comments do not count), `total_s` for the whole call (a job's `timeout_s` replaces it).
    """

    name: str
    url: str
    key: str | None = field(default=None, repr=False)
    connect_s: float = 10.0
    first_byte_s: float = 600.0
    idle_s: float = 300.0
    total_s: float = 600.0
    max_response_bytes: int = 64 * 1024 * 1024
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    cert_key_file: str | None = None
    validation: Validation = "document"
    upstream: Upstream = "as_asked"
    retry_partial: bool = True
    retry_ambiguous: bool = True
