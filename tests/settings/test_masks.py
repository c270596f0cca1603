"""No secret of an address appears in `config`, in an error sentence or in a log line."""

import io
import logging

import pytest

from worker.log import configure, secrets_of
from worker.net.redaction import secrets_of as secrets_of_endpoint
from worker.settings import BadSettings, read
from worker.settings.masks import masked_url, secrets_in, shown

PASSWORD = "Pl4nted#1/2"
AZURE = "https://a.example/openai/deployments/m/chat/completions?api-version=2024&api-key=Pl4ntedKey42"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql+psycopg://app:Pl4nted%231%2F2@h/db", "postgresql+psycopg://app:***@h/db"),
        (
            "rediss://:p@h:1/0?ssl_password=x&ssl_cert_reqs=none",
            "rediss://:***@h:1/0?ssl_password=***&ssl_cert_reqs=none",
        ),
        ("http://u:a@b@proxy:3128", "http://u:***@proxy:3128"),
        (AZURE, "https://a.example/openai/deployments/m/chat/completions?api-version=2024&api-key=***"),
        ("https://h/hook?sig=abc&x=1#t=abc", "https://h/hook?sig=***&x=1#***"),
        ("sqlite:////var/a%20b.db", "sqlite:////var/a%20b.db"),
        ("https://[bad", "***"),
    ],
)
def test_an_address_is_masked_by_its_parts(url: str, masked: str) -> None:
    assert masked_url(url) == masked


def test_secrets_are_known_as_written_and_as_read() -> None:
    found = set(secrets_in("postgresql://app:Pl4nted%231%2F2@h/db?sslpassword=a+b"))
    assert found == {"Pl4nted%231%2F2", "Pl4nted#1/2", "a+b", "a b"}
    assert not [*secrets_in(None), *secrets_in("https://h/?x=1")]


@pytest.mark.parametrize(
    "text", [f"redis://:{PASSWORD}@h:1/0", f"postgresql://u:{PASSWORD}@h:1x/db", f"ftp://u:{PASSWORD}@h", AZURE]
)
def test_a_sentence_about_a_wrong_setting_shows_no_secret(text: str) -> None:
    for secret in (PASSWORD, "1/2", "Pl4nted", "Pl4ntedKey42"):
        assert secret not in shown(text)


def test_an_endpoints_address_that_is_refused_does_not_show_its_key() -> None:
    with pytest.raises(BadSettings) as refused:
        read({"AFTERWORD_ENDPOINT_URL": "ftp://a.example/?api-key=Pl4ntedKey42"})
    assert "Pl4ntedKey42" not in str(refused.value)
    assert "api-key=***" in str(refused.value)


def test_the_log_and_stored_answers_mask_the_key_of_an_address() -> None:
    settings = read({"AFTERWORD_ENDPOINT_URL": AZURE, "AFTERWORD_DATABASE_URL": f"postgresql://u:{PASSWORD}@h/db"})
    assert {"Pl4ntedKey42", PASSWORD} <= set(secrets_of(settings))
    assert b"Pl4ntedKey42" in secrets_of_endpoint(settings.endpoints["default"])

    root = logging.getLogger()
    handlers, level, stream = root.handlers, root.level, io.StringIO()
    configure(settings, stream=stream)
    try:
        logging.getLogger("foreign").error("cannot reach %s with %s", AZURE, PASSWORD)
    finally:
        root.handlers, root.level = handlers, level
    assert "Pl4nted" not in stream.getvalue()
