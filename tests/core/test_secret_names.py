"""One list of words decides for masked settings and for stored answers."""

import pytest

from worker.core.endpoint import Endpoint
from worker.core.secret_names import SECRET_PARTS, SECRET_WORDS, is_secret_name
from worker.net.redaction import secrets_of
from worker.settings.masks import masked_url, secrets_in

VALUE = "Pl4ntedValue42"
INSIDE = ("auth", "cred", "key", "pass", "pwd", "secret", "signature", "token")
PARTS = ("code", "sig")
WORDS = INSIDE + PARTS


def test_the_words_are_these() -> None:
    assert SECRET_WORDS == INSIDE
    assert set(PARTS) == SECRET_PARTS


@pytest.mark.parametrize("word", WORDS)
def test_a_name_with_this_word_as_a_part_is_secret(word: str) -> None:
    for name in (word, word.upper(), f"x-{word}-1", f"x_{word}", f"my{word.title()}", f"{word}2"):
        assert is_secret_name(name)


@pytest.mark.parametrize("word", INSIDE)
def test_a_name_that_contains_this_word_is_secret(word: str) -> None:
    assert is_secret_name(f"my{word}s")


@pytest.mark.parametrize("word", WORDS)
def test_a_parameter_of_this_name_is_masked_in_a_url_and_removed_from_an_answer(word: str) -> None:
    url = f"https://h.example/v1/chat/completions?x_{word}={VALUE}&a=1"

    assert masked_url(url) == f"https://h.example/v1/chat/completions?x_{word}=***&a=1"
    assert VALUE in set(secrets_in(url))
    assert secrets_of(Endpoint(name="e", url=url)) == (VALUE.encode(),)


@pytest.mark.parametrize("word", WORDS)
def test_the_value_of_a_header_of_this_name_is_removed_from_an_answer(word: str) -> None:
    endpoint = Endpoint(name="e", url="https://h.example", headers={f"X-{word.title()}": f"Scheme {VALUE}"})

    assert secrets_of(endpoint) == (VALUE.encode(),)


@pytest.mark.parametrize(
    "name", ["X-Team", "api-version", "application_name", "sslmode", "Content-Type", "X-Design-Team", "codec", ""]
)
def test_any_other_name_is_not(name: str) -> None:
    assert not is_secret_name(name)
    assert not secrets_of(Endpoint(name="e", url="https://h.example", headers={name: VALUE}))
