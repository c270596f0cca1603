"""Settings for people: the effective values with secrets masked, and the reference page made from the declarations."""

from dataclasses import fields
from typing import Any

from worker.core.endpoint import Endpoint
from worker.settings import PLAIN, Settings, variable
from worker.settings.endpoints import DEFAULTS, ENV, FIELDS, SECRETS
from worker.settings.masking import MASK, masked_url

HEAD = """\
# Settings

Made by `afterword config --reference`; a test holds it to the code. `afterword config` shows the values in effect.

Every setting is an environment variable; an empty one counts as not set, an unknown one that begins with
`AFTERWORD_` is an error. All faults are reported together. A secret may also stand in a file, named by the
variable with `_FILE` at its end (marked *file* below).
"""
ENDPOINTS = """
## Endpoints

The endpoint named `default` is described by variables; those of `AFTERWORD_CONFIG` by a TOML file:

```toml
[endpoints.fast]
url = "https://llm.example.com/v1"
key_env = "FAST_KEY"            # or key_file = "/run/secrets/fast_key"; never the key itself
idle_s = 30
headers = { "X-Team" = "search" }
```

A file's name is taken relative to the folder of the TOML file. `[endpoints.default]` may stand there too; where both
say something, the variable wins.
"""


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain JSON values by variable; of a secret only what is harmless is shown."""
    shown: dict[str, Any] = {}
    for one in PLAIN:
        value = getattr(settings, one.name)
        shown[variable(one.name)] = _plain(value, secret=one.metadata["secret"])
    shown["AFTERWORD_CONFIG"] = str(settings.config) if settings.config else None
    shown["AFTERWORD_DATA_DIR"] = str(settings.data_dir) if settings.data_dir else None
    shown["endpoints"] = {name: _endpoint(endpoint) for name, endpoint in settings.endpoints.items()}
    return shown


def _plain(value: Any, *, secret: bool) -> Any:
    if isinstance(value, tuple):
        return [MASK if secret else str(one) for one in value]
    return masked_url(str(value)) if secret and value is not None else value


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    shown = {one.name: getattr(endpoint, one.name) for one in fields(Endpoint) if one.name != "name"}
    shown["url"] = masked_url(endpoint.url)
    shown["key"] = MASK if endpoint.key else None
    shown["proxy"] = masked_url(endpoint.proxy) if endpoint.proxy else None
    shown["headers"] = dict.fromkeys(endpoint.headers, MASK)
    return shown


def reference() -> str:
    """Return the page of all settings in Markdown."""
    plain = [
        _row(f"`{variable(one.name)}`", one.metadata["reader"].expects, one.default, one.metadata) for one in PLAIN
    ]
    endpoint = [
        _row(f"`{ENV}{name.upper()}`", reader.expects, DEFAULTS.get(name), {"text": text, "secret": name in SECRETS})
        for name, (reader, text) in FIELDS.items()
    ]
    table = ["| setting | takes | default | meaning |", "|---|---|---|---|"]
    return "\n".join([HEAD, *table, *plain, ENDPOINTS, *table, *endpoint, ""])


def _row(name: str, expects: str, default: object, notes: Any) -> str:
    shown = (
        "" if default in (None, ()) else f"`{str(default).lower() if isinstance(default, bool) else _number(default)}`"
    )
    return f"| {name} | {expects}{', *file*' if notes['secret'] else ''} | {shown} | {notes['text']} |"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and value < 1e5 else str(value)
