"""One list of words decides for masked settings, a part of it for stored answers."""

import pytest

from worker.core import secret_names
from worker.core.endpoint import Endpoint
from worker.core.secret_names import is_secret_name
from worker.net.redaction import secrets_of
from worker.settings.masks import masked_url, secrets_in

VALUE = "Pl4ntedValue42"
MASKED = ("auth", "code", "cred", "key", "pass", "pwd", "secret", "sig", "token")
REMOVED = ("auth", "credential", "key", "passphrase", "passwd", "password", "pwd", "secret", "signature", "token")
URL = "https://h.example/v1/chat/completions"


def test_the_words_are_these() -> None:
    assert secret_names.SECRET_WORDS == MASKED
    assert secret_names.CERTAIN_WORDS == REMOVED


@pytest.mark.parametrize("word", MASKED + REMOVED)
def test_a_name_that_contains_this_word_is_masked(word: str) -> None:
    for name in (word, word.upper(), f"x-{word}-1", f"x_{word}", f"my{word.title()}", f"{word}2", f"my{word}s"):
        assert is_secret_name(name)


@pytest.mark.parametrize("name", ["sigv4", "accesscode", "apisig", "clientcode"])
def test_a_parameter_of_one_word_is_masked_wherever_the_secret_word_is(name: str) -> None:
    assert masked_url(f"{URL}?{name}={VALUE}") == f"{URL}?{name}=***"


@pytest.mark.parametrize("word", REMOVED)
def test_a_parameter_of_this_name_is_masked_in_a_url_and_removed_from_an_answer(word: str) -> None:
    url = f"{URL}?x_{word}={VALUE}&a=1"

    assert masked_url(url) == f"{URL}?x_{word}=***&a=1"
    assert VALUE in set(secrets_in(url))
    assert secrets_of(Endpoint(name="e", url=url)) == (VALUE.encode(),)


@pytest.mark.parametrize("word", REMOVED)
def test_the_value_of_a_header_of_this_name_is_removed_from_an_answer(word: str) -> None:
    endpoint = Endpoint(name="e", url="https://h.example", headers={f"X-{word.title()}": f"Scheme {VALUE}"})

    assert secrets_of(endpoint) == (VALUE.encode(),)


@pytest.mark.parametrize("name", ["X-Team", "api-version", "application_name", "sslmode", "Content-Type", ""])
def test_any_other_name_is_not(name: str) -> None:
    assert not is_secret_name(name)
    assert not secrets_of(Endpoint(name="e", url="https://h.example", headers={name: VALUE}))


@pytest.mark.parametrize("name", ["X-Cost-Code", "X-Bypass-Cache", "X-Credit-Class", "X-Design-Team", "codec"])
def test_an_ordinary_header_takes_no_word_out_of_an_answer(name: str) -> None:
    assert not secrets_of(Endpoint(name="e", url="https://h.example", headers={name: "marketing"}))
