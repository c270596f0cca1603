"""What the worker knows of one configured endpoint. Plain values; `settings` makes them, `net` and `core` read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Validation = Literal["document", "openai", "shape"]
Upstream = Literal["as_asked", "stream"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible chat-completions endpoint: where it is, who we are to it, how long we wait.

    `url` is the whole address a request is POSTed to. Four deadlines, in seconds: to a connection (`connect_s`), from
    the request to the first byte of the answer (`first_byte_s`), between two pieces of *data* (`idle_s`; SSE comments
    do not count), and for the whole call (`total_s`, which a job's `timeout_s` replaces).
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
