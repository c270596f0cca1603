"""The values that the environment may set, and the messages about wrong ones."""

import json
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from worker.core.endpoint import Endpoint
from worker.settings import BadSettings, Settings, child_environment, known_names, need, read
from worker.settings.endpoints import FIELDS
from worker.settings.page import masked, reference

URL = "https://api.example.com"


def errors_of(**environ: str) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as caught:
        read({f"AFTERWORD_{name}": text for name, text in environ.items()})
    return caught.value.errors


def one_error_of(**environ: str) -> str:
    (error,) = errors_of(**environ)
    return error


def settings_of(**environ: str) -> Settings:
    return read({f"AFTERWORD_{name}": text for name, text in environ.items()})


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read({}) == Settings()
    assert Settings().concurrency == 100
    assert Settings().max_request_bytes == 16 * 1024 * 1024


def test_an_empty_variable_counts_as_absent() -> None:
    assert settings_of(CONCURRENCY="", ENDPOINT_URL="", REDIS_URL="") == Settings()


def test_numbers_and_words_are_read() -> None:
    settings = settings_of(CONCURRENCY="500", LEASE_S="2.5", LOG_FORMAT="json", HTTP_TRANSPORT="httpx")
    assert (settings.concurrency, settings.lease_s) == (500, 2.5)
    assert (settings.log_format, settings.http_transport) == ("json", "httpx")


def test_all_faults_are_reported_at_once() -> None:
    errors = errors_of(CONCURRENCY="many", LEASE_S="nan", LOG_LEVEL="loud", ENDPOINT_URL="ftp://x", COLOUR="red")
    assert len(errors) == 5


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("CONCURRENCY", "0", "AFTERWORD_CONCURRENCY is '0'; it must be a whole number from 1 to 100000."),
        ("CONCURRENCY", "1e3", "AFTERWORD_CONCURRENCY is '1e3'; it must be a whole number from 1 to 100000."),
        ("BEAT_S", "inf", "AFTERWORD_BEAT_S is 'inf'; it must be a number of seconds from 0.01 to 60."),
        ("LOOP", "trio", "AFTERWORD_LOOP is 'trio'; it must be asyncio or uvloop."),
        ("DATABASE_SCHEMA", "a b", "AFTERWORD_DATABASE_SCHEMA is 'a b'; it must be a plain PostgreSQL name"),
        ("CONFIG", "/nowhere.toml", "AFTERWORD_CONFIG is '/nowhere.toml'; there is no such file."),
        ("WEBHOOK_ALLOW_HTTP", "2", "AFTERWORD_WEBHOOK_ALLOW_HTTP is '2'; it must be true or false."),
        (
            "WEBHOOK_ALLOW_CIDRS",
            "10.1.2.3/8",
            "AFTERWORD_WEBHOOK_ALLOW_CIDRS is '10.1.2.3/8'; '10.1.2.3/8' must be a network such as",
        ),
        (
            "WEBHOOK_PORTS",
            "8443,0",
            "AFTERWORD_WEBHOOK_PORTS is '8443,0'; '0' must be a port, a number from 1 to",
        ),
        (
            "WEBHOOK_EGRESS_PROXY",
            "https://proxy.example.com",
            "AFTERWORD_WEBHOOK_EGRESS_PROXY is (not shown); it must begin with http://, as in",
        ),
        ("WEBHOOK_PORTS", "65536", "AFTERWORD_WEBHOOK_PORTS is '65536'; '65536' must be a port, a number from 1 to"),
        ("WEBHOOK_PORTS", "8000-9000", "AFTERWORD_WEBHOOK_PORTS is '8000-9000'; '8000-9000' must be a port, a number"),
        ("WEBHOOK_PORTS", " , ", "AFTERWORD_WEBHOOK_PORTS is ' , '; it must hold at least one port, such as 8443."),
    ],
)
def test_a_fault_names_the_variable_the_value_and_the_remedy(name: str, text: str, reason: str) -> None:
    assert one_error_of(**{name: text}).startswith(reason)


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    assert one_error_of(CONCURENCY="5") == "AFTERWORD_CONCURENCY is not a setting; did you mean AFTERWORD_CONCURRENCY?"
    assert "afterword config --reference" in one_error_of(ZZZZ="5")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://api.example.com", "https://api.example.com/v1/chat/completions"),
        ("https://api.example.com/", "https://api.example.com/v1/chat/completions"),
        ("https://api.example.com/v1", "https://api.example.com/v1/chat/completions"),
        ("https://api.example.com/openai/v1/", "https://api.example.com/openai/v1/chat/completions"),
        ("http://127.0.0.1:8000/v9/chat/completions", "http://127.0.0.1:8000/v9/chat/completions"),
        ("https://a.example/d/m?api-version=1", "https://a.example/d/m/chat/completions?api-version=1"),
    ],
)
def test_the_endpoint_url_follows_the_three_rules_of_its_path(given: str, meant: str) -> None:
    endpoint = settings_of(ENDPOINT_URL=given).endpoint
    assert endpoint is not None
    assert endpoint.url == meant


@pytest.mark.parametrize("text", ["api.example.com", "https://", "https://u:p@a.example", "https://a.example/#x"])
def test_an_address_that_cannot_be_called_is_refused(text: str) -> None:
    assert one_error_of(ENDPOINT_URL=text).startswith("AFTERWORD_ENDPOINT_URL is ")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgres://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
        ("sqlite:////var/lib/a.db", "sqlite:////var/lib/a.db"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_a_database_url_is_understood_as_people_write_it(given: str, meant: str) -> None:
    assert settings_of(DATABASE_URL=given).database_url == meant


@pytest.mark.parametrize("text", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "postgresql+psycopg2://u:geheim@h"])
def test_a_bad_database_url_is_refused_without_being_shown(text: str) -> None:
    assert one_error_of(DATABASE_URL=text).startswith("AFTERWORD_DATABASE_URL is (not shown); ")


@pytest.mark.parametrize("text", ["localhost:6379", "http://h", "redis://h/queue", "redis://"])
def test_a_bad_redis_url_is_refused(text: str) -> None:
    assert one_error_of(REDIS_URL=text).startswith("AFTERWORD_REDIS_URL is (not shown); ")


def test_secrets_may_be_in_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n")
    (tmp_path / "db").write_text("postgresql://u:p@h/d\n")
    settings = settings_of(
        ENDPOINT_URL=URL, ENDPOINT_KEY_FILE=str(tmp_path / "key"), DATABASE_URL_FILE=str(tmp_path / "db")
    )
    assert settings.endpoint is not None
    assert settings.endpoint.key == "sk-1"
    assert settings.database_url == "postgresql+psycopg://u:p@h/d"


def test_a_secret_given_twice_or_in_an_unreadable_or_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    there, away = str(tmp_path / "empty"), str(tmp_path / "away")
    assert "are both set" in one_error_of(REDIS_URL="redis://h", REDIS_URL_FILE=there)
    assert "cannot be read (No such file or directory)" in one_error_of(REDIS_URL_FILE=away)
    assert "is empty" in one_error_of(REDIS_URL_FILE=there)


def test_the_providers_own_variable_is_the_last_source_of_the_key() -> None:
    both = read({"AFTERWORD_ENDPOINT_URL": URL, "OPEAI_API_KEY": "a", "AFTERWORD_ENDPOINT_KEY": "b"})
    alone = read({"AFTERWORD_ENDPOINT_URL": URL, "OPEAI_API_KEY": "a"})
    assert both.endpoints["default"].key == "b"
    assert alone.endpoints["default"].key == "a"
    assert read({"OPEAI_API_KEY": "a"}).endpoints == {}


def test_a_key_with_a_line_break_is_refused_unshown() -> None:
    error = one_error_of(ENDPOINT_URL=URL, ENDPOINT_KEY="sk-geheim\r\nX: y")
    assert error.startswith("AFTERWORD_ENDPOINT_KEY is (not shown); ")
    assert "geheim" not in error


OLD_KEY, NEW_KEY = "b2xk" * 10 + "b2w=", "bmV3" * 10 + "bmU="


def test_the_settings_of_webhooks_are_read() -> None:
    settings = settings_of(
        SECRET_KEYS=f"{NEW_KEY}, {OLD_KEY}",
        WEBHOOK_ALLOW_CIDRS="10.1.0.0/16, fd00::/8,192.168.1.9",
        WEBHOOK_ALLOW_HTTP="true",
        WEBHOOK_ALLOW_URLS="on",
        WEBHOOK_PORTS="8443, 9443,8443",
    )
    assert settings.webhook_ports == (8443, 9443)
    assert settings.secret_keys == (NEW_KEY, OLD_KEY)
    assert settings.webhook_allow_cidrs == tuple(map(ip_network, ("10.1.0.0/16", "fd00::/8", "192.168.1.9/32")))
    assert (settings.webhook_allow_http, settings.webhook_allow_urls) == (True, True)


def test_nothing_is_allowed_and_no_secret_key_known_unless_said() -> None:
    settings = read({})
    assert (settings.secret_keys, settings.webhook_allow_cidrs, settings.webhook_ports) == ((), (), ())
    assert (settings.webhook_allow_http, settings.webhook_allow_urls) == (False, False)


def test_secret_keys_may_be_in_a_file_one_to_a_line(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{NEW_KEY}\n{OLD_KEY}\n")
    assert settings_of(SECRET_KEYS_FILE=str(tmp_path / "keys")).secret_keys == (NEW_KEY, OLD_KEY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("geheim", "key 1 must be 32 bytes in URL-safe base64, 44 characters; make one with `openssl rand -base64 32"),
        (f"{NEW_KEY},{NEW_KEY[:-1]}", "key 2 must be 32 bytes"),
        (f"{NEW_KEY},{'+' * 43}=", "key 2 must be 32 bytes"),
        (f"{NEW_KEY},{OLD_KEY},{NEW_KEY}", "key 3 repeats an earlier key"),
        (" , ", "it must hold at least one key"),
    ],
    ids=["no key", "cut", "not URL-safe", "twice", "none"],
)
def test_a_secret_key_that_is_none_is_refused_unshown(text: str, reason: str) -> None:
    error = one_error_of(SECRET_KEYS=text)
    assert error.startswith(f"AFTERWORD_SECRET_KEYS is (not shown); {reason}")
    assert "geheim" not in error


def test_secret_keys_are_masked_and_networks_shown() -> None:
    settings = settings_of(SECRET_KEYS=f"{NEW_KEY},{OLD_KEY}", WEBHOOK_ALLOW_CIDRS="10.1.0.0/16")
    shown = masked(settings)
    assert NEW_KEY not in repr(settings) + repr(shown)
    assert OLD_KEY not in repr(settings) + repr(shown)
    assert shown["AFTERWORD_SECRET_KEYS"] == ["***", "***"]
    assert shown["AFTERWORD_WEBHOOK_ALLOW_CIDRS"] == ["10.1.0.0/16"]
    assert json.loads(json.dumps(shown)) == shown


def test_secrets_are_in_no_repr_and_no_masked_form() -> None:
    settings = settings_of(
        ENDPOINT_URL=URL,
        ENDPOINT_KEY="geheim",
        ENDPOINT_PROXY="http://u:geheim@proxy:1",
        DATABASE_URL="postgresql://u:geheim@h/d?sslmode=require",
        REDIS_URL="rediss://u:geheim@h:1/0",
    )
    shown = masked(settings)
    assert "geheim" not in repr(settings)
    assert "geheim" not in str(shown)
    assert shown["AFTERWORD_DATABASE_URL"] == "postgresql+psycopg://u:***@h/d?sslmode=require"
    assert shown["endpoints"]["default"]["key"] == "***"


def config(folder: Path, text: str) -> str:
    path = folder / "afterword.toml"
    path.write_text(text)
    return str(path)


def test_a_toml_file_adds_named_endpoints(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("sk-file\n")
    path = config(
        tmp_path,
        """
        [endpoints.fast]
        url = "https://fast.example/v1"
        key_file = "k"
        idle_s = 30
        retry_partial = false
        headers = { "X-Team" = "search" }
        [endpoints.big]
        url = "https://big.example"
        key_env = "BIG_KEY"
        """,
    )
    settings = read({"AFTERWORD_CONFIG": path, "BIG_KEY": "sk-env", "AFTERWORD_ENDPOINT_URL": URL})
    assert set(settings.endpoints) == {"default", "fast", "big"}
    fast = settings.endpoints["fast"]
    assert (fast.name, fast.key, fast.idle_s, fast.retry_partial) == ("fast", "sk-file", 30.0, False)
    assert fast.headers == {"X-Team": "search"}
    assert settings.endpoints["big"].key == "sk-env"


def test_a_toml_file_gives_tenants_weights(tmp_path: Path) -> None:
    path = config(tmp_path, '[tenants.acme]\nweight = 3\n[tenants."*"]\nweight = 0.5')
    settings = settings_of(CONFIG=path, ENDPOINT_URL=URL)

    assert (settings.weight("acme"), settings.weight("other")) == (3.0, 0.5)
    assert settings_of(ENDPOINT_URL=URL).weight("other") == 1.0
    assert masked(settings)["tenants"] == {"acme": {"weight": 3.0}, "*": {"weight": 0.5}}


def test_the_environment_wins_over_the_file_field_by_field(tmp_path: Path) -> None:
    path = config(tmp_path, '[endpoints.default]\nurl = "https://file.example"\nidle_s = 5')
    endpoint = settings_of(CONFIG=path, ENDPOINT_IDLE_S="7").endpoint
    assert endpoint is not None
    assert (endpoint.url, endpoint.idle_s) == ("https://file.example/v1/chat/completions", 7.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '[endpoints.a]\nurl = "https://a"\nidle = 3',
            "idle in [endpoints.a] is not a setting of an endpoint; did you",
        ),
        (
            '[endpoints.a]\nurl = "https://a"\nkey = "sk-geheim"',
            "key in [endpoints.a] would put a secret into the file",
        ),
        ('[endpoints.a]\nurl = "https://a"\nkey_env = "NO_SUCH"', "names the variable NO_SUCH, but NO_SUCH is not set"),
        ("[endpoints.a]\nidle_s = 3", "[endpoints.a] has settings but no url"),
        ('[endpoints."A b"]\nurl = "https://a"', "[endpoints.A b] is 'A b'; it must be up to 64"),
        ("[endpoint.a]", "did you mean endpoints?"),
        ("[models.a]", "is not a known section"),
        ("[tenants.a]\nbudget = 3", "budget in [tenants.a] is not a setting of a tenant; known are weight."),
        ("[tenants]\na = 3", "tenants.a is not a section; write [tenants.a]."),
        ("[tenants.a]\nweight = 0", "[tenants.a] weight is 0; it must be from 0.01 to 1000."),
        ("[tenants.a]\nweight = 1001", "[tenants.a] weight is 1001; it must be from 0.01 to 1000."),
        ("[tenants.a]\nweight = nan", "[tenants.a] weight is nan; it must be from 0.01 to 1000."),
        ("[tenants.a]\nweight = true", "[tenants.a] weight is True; it must be from 0.01 to 1000."),
        ("[tenants.a]\nweight = '3'", "[tenants.a] weight is '3'; it must be from 0.01 to 1000."),
        ("[endpoints]\na = 3", "write [endpoints.a]"),
        ("endpoints = 3", "endpoints is not a section; write [endpoints.NAME]."),
        ("tenants = 3", "tenants is not a section; write [tenants.NAME]."),
        ('[endpoints.a]\nurl = "https://a"\nheaders = { "a b" = "c" }', "has 'a b', but this header cannot be sent"),
        (
            '[endpoints.a]\nurl = "https://a"\nheaders = { "X-A" = "c\\r\\nd" }',
            "has 'X-A', but this header cannot be sent",
        ),
        ('[endpoints.a]\nurl = "https://a"\ncert_key_file = "afterword.toml"', "has a cert_key_file but no cert_file"),
        ("endpoints = ", "but it is not TOML"),
    ],
)
def test_a_fault_in_the_file_is_a_sentence(tmp_path: Path, text: str, reason: str) -> None:
    error = one_error_of(CONFIG=config(tmp_path, text))
    assert reason in error
    assert "geheim" not in error


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"LEASE_S": "20", "BEAT_S": "15"}, "lease_s is 20 but beat_s is 15; the lease must outlive two heartbeats."),
        ({"LEASE_S": "3", "TICK_S": "1.5"}, "lease_s is 3 but tick_s is 1.5; the lease must outlive two ticks."),
        ({"WINDOW_S": "0.5"}, "window_s is 0.5 but tick_s is 1; the window must last at least one tick."),
        ({"DATABASE_URL": "sqlite:////a", "DATABASE_SCHEMA": "s"}, "database_schema is 's' but SQLite has no schemas"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ: dict[str, str], reason: str) -> None:
    assert one_error_of(**environ).startswith(reason)


def test_a_worker_without_its_urls_gets_one_sentence() -> None:
    with pytest.raises(BadSettings) as caught:
        need(read({}), "database_url", "redis_url", "endpoint")
    (error,) = caught.value.errors
    assert error == (
        "AFTERWORD_DATABASE_URL, AFTERWORD_REDIS_URL and AFTERWORD_ENDPOINT_URL are not set; "
        "set what is missing, or try `afterword dev`."
    )
    need(settings_of(REDIS_URL="redis://h"), "redis_url")


def test_every_field_of_an_endpoint_can_be_set() -> None:
    assert {one.name for one in fields(Endpoint)} - {"name", "headers"} == set(FIELDS)


def test_every_setting_is_known_by_name() -> None:
    for one in fields(Settings):
        assert one.name in ("endpoints", "weights") or f"AFTERWORD_{one.name.upper()}" in known_names()


def test_a_child_inherits_no_setting_but_those_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERWORD_LEASE_S", "5")
    child = child_environment({"AFTERWORD_TICK_S": "1"})
    assert "AFTERWORD_LEASE_S" not in child
    assert child["AFTERWORD_TICK_S"] == "1"


def test_the_page_of_settings_is_up_to_date() -> None:
    page = Path(__file__).parent.parent.parent / "ops" / "settings.md"
    assert page.read_text(encoding="utf-8") == reference()


def test_addresses_in_jobs_need_a_key_to_sign_with() -> None:
    assert "webhook_allow_urls is true but secret_keys is not set" in one_error_of(WEBHOOK_ALLOW_URLS="true")
