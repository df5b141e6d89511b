"""The settings: sources and their order, defaults, and the messages about invalid settings."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import Backends
from memory.store import Store
from settings import Settings, SettingsError, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.toml"


def load(file: Path, text: str = "", environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
    file.write_text(text)
    return load_settings({"config": str(file), **arguments}, environ or {})


def error_of(file: Path, text: str = "", environ: dict[str, str] | None = None, **arguments: Any) -> str:
    with pytest.raises(SettingsError) as error:
        load(file, text, environ, **arguments)
    return str(error.value)


def entry(**values: str) -> str:
    return "[[backends]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def test_empty_file_gives_the_local_and_the_scripted_backend(file: Path) -> None:
    found = load(file)
    assert [b.kind for b in found.backends] == ["local", "scripted"]
    assert found.memory.default == "tokens"
    assert found.limits.reply_tokens == 1024
    assert (found.auth, found.share, found.secret, found.on_space) == (None, False, None, False)
    assert found.database_url.endswith("glassbox.db")


def test_file_overrides_defaults(file: Path) -> None:
    text = entry(name='"Mine"', kind='"scripted"', options="{ speed = 2 }") + "[memory]\nwindow_turns = 9\n"
    found = load(file, text)
    assert [(b.name, b.options) for b in found.backends] == [("Mine", {"speed": 2})]
    assert (found.memory.window_turns, found.memory.default) == (9, "tokens")


def test_variable_overrides_file(file: Path) -> None:
    text = entry(name='"Mine"', kind='"local"', model='"bundled"')
    environ = {"GLASSBOX_LOCAL_MODEL": "/models/other.gguf"}
    assert [b.model for b in load(file, text, environ).backends] == ["/models/other.gguf"]
    assert load(file, "", environ).backends[0].model == "/models/other.gguf"
    assert load(file, entry(name='"S"', kind='"scripted"'), environ).backends[0].model is None


def test_argument_overrides_variable(file: Path, tmp_path: Path) -> None:
    environ = {"GLASSBOX_AUTH": "ann:one", "GLASSBOX_CONFIG": str(tmp_path / "absent.toml")}
    assert load(file, environ=environ).auth == ("ann", "one")
    assert load(file, environ=environ, auth="ben:two:three").auth == ("ben", "two:three")


def test_variables_are_read(tmp_path: Path, file: Path) -> None:
    environ = {"GLASSBOX_DATA": str(tmp_path / "kept"), "GLASSBOX_SECRET": "hush", "SPACE_ID": "someone/glassbox"}
    found = load(file, environ=environ)
    assert found.data == tmp_path / "kept"
    assert found.database_url == f"sqlite:///{tmp_path / 'kept' / 'glassbox.db'}"
    assert (found.secret, found.on_space) == ("hush", True)
    elsewhere = load(file, environ={**environ, "GLASSBOX_DATABASE_URL": "sqlite:////elsewhere/x.db"})
    assert elsewhere.database_url == "sqlite:////elsewhere/x.db"


def test_gradio_port_variable_is_checked_unless_overridden(file: Path) -> None:
    assert load(file, environ={"GRADIO_SERVER_PORT": "8000"}).port == 8000
    assert load(file, environ={"GRADIO_SERVER_PORT": "abc"}, port=7861).port == 7861
    for found in ("abc", "0", "99999", "-1", "8e3"):
        message = error_of(file, environ={"GRADIO_SERVER_PORT": found})
        assert message == f"GRADIO_SERVER_PORT: found {found!r}, allowed: a number from 1 to 65535"


def test_invalid_data_folder_is_reported(file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    assert "allowed: a folder" in error_of(file, environ={"GLASSBOX_DATA": str(tmp_path / "taken" / "below")})
    assert "allowed: a folder" in error_of(file, environ={"GLASSBOX_DATA": str(tmp_path / "taken")})


def test_config_variable_names_the_file(file: Path) -> None:
    file.write_text('system_prompt = "Be brief."')
    assert load_settings({}, {"GLASSBOX_CONFIG": str(file)}).system_prompt == "Be brief."


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError):
        Settings().host = "0.0.0.0"  # type: ignore[misc]


def test_syntax_error_names_file_and_line(file: Path) -> None:
    message = error_of(file, 'system_prompt = "x"\n\n[memory\n')
    assert str(file) in message
    assert "line 3" in message


def test_repeated_backend_name_is_reported(file: Path) -> None:
    message = error_of(file, entry(name='"Same"', kind='"local"') + entry(name='"Same"', kind='"scripted"'))
    assert "'Same' is used twice" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("backends = []", "at least one [[backends]]"),
        ("[memry]\n", "memry: no such setting; did you mean 'memory'?"),
        ("[memory]\nwindow_turn = 3", "memory, window_turn: no such setting; did you mean 'window_turns'?"),
        ("[limits]\nfoo = 3", "limits, foo: no such setting; allowed: abandoned_seconds"),
        (
            entry(name='"A"', kind='"scripted"', clas='"x"'),
            "backends entry 1 ('A'), clas: no such setting; did you mean 'class'?",
        ),
        ("[memory]\ndefault = 'sumary'", "memory, default: found 'sumary', allowed: 'none', 'full'"),
        ("[limits]\nreply_tokens = '9'", "limits, reply_tokens: found '9'"),
        ("[limits]\nreply_tokens = 0", "limits, reply_tokens: found 0; input should be greater than or equal to 1"),
        ("[limits]\nrun_seconds = true", "limits, run_seconds: found True"),
        ("[limits]\nrun_seconds = nan", "limits, run_seconds: found nan"),
        ("[limits]\nrun_seconds = -1", "limits, run_seconds: found -1"),
        ("system_prompt = 3", "system_prompt: found 3"),
        ("backends = 3", "backends: found 3"),
        ("backends = ['x']", "backends entry 1"),
        ("[backends]\nname = 'A'", "backends: found"),
        (entry(kind='"scripted"'), "backends entry 1, name: missing"),
        (entry(name='"A"'), "backends entry 1 ('A'), kind: missing"),
        (entry(name='" A "', kind='"scripted"'), "no blanks around it"),
        (entry(name='"a\\nb"', kind='"scripted"'), "no control characters"),
        (entry(name="''", kind='"scripted"'), "name: found ''"),
        (entry(name='"A"', kind='"local"', slots="1000"), "slots: found 1000"),
        (entry(name='"A"', kind='"openai"', timeout="0"), "timeout: found 0"),
        (entry(name='"A"', kind='"openai"', timeout="inf"), "timeout: found inf"),
        (entry(name='"A"', kind='"scripted"', fallback='"B"'), "fallback of 'A': found 'B', allowed: no other backend"),
        (entry(name='"A"', kind='"scripted"', fallback='"A"'), "fallback of 'A': 'A' leads back to it"),
    ],
)
def test_invalid_value_is_reported_with_its_key(file: Path, text: str, expected: str) -> None:
    message = error_of(file, text)
    assert expected in message
    assert message.startswith(f"{file}: ")


def chain(**following: str) -> str:
    """Backends by name, each with its fallback, if it has one."""
    return "".join(
        entry(name=f'"{name}"', kind='"scripted"', **({"fallback": f'"{to}"'} if to else {}))
        for name, to in following.items()
    )


def test_fallbacks_can_form_a_chain(file: Path) -> None:
    found = load(file, chain(A="B", B="C", C="", D="B"))
    assert [b.fallback for b in found.backends] == ["B", "C", None, "B"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (chain(A="C", B=""), "fallback of 'A': found 'C', allowed: 'B'"),
        (chain(A="B", B="A"), "fallback of 'B': 'A' leads back to it"),
        (chain(A="B", B="C", C="B"), "fallback of 'C': 'B' leads back to it"),
        (chain(A="", B="C", C="D", D="B"), "fallback of 'D': 'B' leads back to it"),
    ],
)
def test_missing_or_circular_fallback_is_reported(file: Path, text: str, message: str) -> None:
    assert message in error_of(file, text)


@given(st.dictionaries(st.sampled_from("ABCDE"), st.sampled_from(["", *"ABCDEF"]), min_size=1))
def test_accepted_chains_of_fallbacks_end(following: dict[str, str]) -> None:
    made = [{"name": name, "kind": "scripted"} | ({"fallback": to} if to else {}) for name, to in following.items()]
    try:
        found = {b.name: b.fallback for b in Settings.model_validate({"backends": made}).backends}
    except ValueError:
        assert any(to and _endless(following, name) for name, to in following.items())
    else:
        assert not any(_endless(found, name) for name in found)


def _endless(following: Mapping[str, str | None], name: str) -> bool:
    """Checks whether a chain is circular or ends with a missing backend."""
    for _ in range(len(following) + 1):
        if name not in following:
            return True
        if not following[name]:
            return False
        name = str(following[name])
    return True


@pytest.mark.parametrize(
    "pasted", ["sk-proj-0123456789", "AIzaSyD-0123456789", "hf_0123456789", "lower_case", "", "A KEY", "9KEY", "KEYÉ"]
)
def test_key_instead_of_its_variable_is_rejected_and_not_repeated(file: Path, pasted: str) -> None:
    message = error_of(file, entry(name='"A"', kind='"openai"', model='"m"', key=f'"{pasted}"'))
    assert "backends entry 1 ('A'), key" in message
    assert "never the key" in message
    assert not pasted or pasted not in message


def test_key_in_an_unknown_setting_is_not_repeated(file: Path) -> None:
    message = error_of(file, entry(name='"A"', kind='"openai"', model='"m"', api_key='"sk-0123456789"'))
    assert "api_key: no such setting; did you mean 'key'?" in message
    assert "sk-0123456789" not in message


@pytest.mark.parametrize("number", ["3", "true", "['A_KEY']"])
def test_key_must_be_a_variable_name(file: Path, number: str) -> None:
    assert "never the key" in error_of(file, entry(name='"A"', kind='"openai"', key=number))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("https://models.example/v1/", "https://models.example/v1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_base_url_loses_its_final_slash(file: Path, url: str, expected: str) -> None:
    found = load(file, entry(name='"A"', kind='"openai"', model='"m"', base_url=f'"{url}"'))
    assert found.backends[0].base_url == expected


NO_URLS = ["", "localhost:8080", "127.0.0.1", "/v1", "ftp://models.example", "http://", "http:///v1", "http://a b"]
NO_URLS += ["https://ann:one@models.example", "https://:one@models.example", "https://models.example:99999/v1"]


@pytest.mark.parametrize("url", [*NO_URLS, "javascript:alert(1)", "http://[::1"])
def test_invalid_base_url_is_reported(file: Path, url: str) -> None:
    message = error_of(file, entry(name='"A"', kind='"openai"', model='"m"', base_url=f'"{url}"'))
    assert "backends entry 1 ('A'), base_url" in message
    assert ":one" not in message


KEYED = entry(name='"A"', kind='"openai"', model='"m"', key='"A_KEY"')


@pytest.mark.parametrize("value", ["", "  ", "\n", None])
def test_empty_key_variable_counts_as_missing(file: Path, value: str | None) -> None:
    assert load(file, KEYED, {} if value is None else {"A_KEY": value}).keys == {}


def test_only_keys_that_entries_name_are_read(file: Path) -> None:
    text = KEYED + entry(name='"G"', kind='"gemini"', model='"m"') + entry(name='"O"', kind='"openai"', model='"m"')
    text += entry(name='"Own"', kind='"openai"', model='"m"', base_url='"http://127.0.0.1:1/v1"')
    text += entry(name='"S"', kind='"scripted"')
    environ = {"A_KEY": " one\n", "GOOGLE_API_KEY": "two", "OPENAI_API_KEY": "three", "OTHER_API_KEY": "four"}
    found = load(file, text, environ)
    assert [b.key_name for b in found.backends] == ["A_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", None, None]
    revealed = {name: key.get_secret_value() for name, key in found.keys.items()}
    assert revealed == {"A_KEY": "one", "GOOGLE_API_KEY": "two", "OPENAI_API_KEY": "three"}


def test_keys_are_never_shown(file: Path) -> None:
    found = load(file, KEYED, {"A_KEY": "sk-0123456789"})
    shown = [repr(found), str(found), f"{found}", str(found.model_dump()), found.model_dump_json(), repr(found.keys)]
    assert not [text for text in shown if "sk-0123456789" in text]
    assert all("A_KEY" in text for text in shown)


def test_every_problem_is_reported(file: Path) -> None:
    message = error_of(file, "[memory]\nwindow_turns = 0\n[limits]\nruns = 0\n")
    assert len(message.splitlines()) == 2


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    absent, folder, binary = tmp_path / "absent.toml", tmp_path / "folder", tmp_path / "binary.toml"
    folder.mkdir()
    binary.write_bytes(b'x = "\xff"')
    for path, message in [(absent, "no such file"), (folder, "cannot be read"), (binary, "not UTF-8")]:
        for named in ({"config": str(path)}, {}):
            environ = {} if named else {"GLASSBOX_CONFIG": str(path)}
            with pytest.raises(SettingsError) as error:
                load_settings(named, environ)
            assert str(path) in str(error.value)
            assert message in str(error.value)


@pytest.mark.parametrize("auth", ["ann", "ann:", ":secret", ":"])
def test_login_needs_user_and_password_and_is_not_repeated(file: Path, auth: str) -> None:
    message = error_of(file, auth=auth)
    assert "USER:PASSWORD" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("arguments", "message"), [({"port": 0}, "port: found 0"), ({"port": 70_000}, "port: found 70000")]
)
def test_invalid_argument_is_reported(file: Path, arguments: dict[str, Any], message: str) -> None:
    assert message in error_of(file, **arguments)


def test_unknown_database_is_reported_without_its_password(file: Path) -> None:
    message = error_of(file, environ={"GLASSBOX_DATABASE_URL": "mysql://user:secret@host/db"})
    assert "GLASSBOX_DATABASE_URL: found 'mysql'" in message
    assert "secret" not in message


@pytest.mark.parametrize("url", ["postgresql://u:p@h/db", "postgres://h/db?sslmode=require", "sqlite:////tmp/x.db"])
def test_both_kinds_of_database_are_accepted(file: Path, url: str) -> None:
    Store(load(file, environ={"GLASSBOX_DATABASE_URL": url}).database_url)


def test_invalid_database_address_is_reported_without_its_password(file: Path) -> None:
    url = load(file, environ={"GLASSBOX_DATABASE_URL": "postgresql://u:secret@h:port/db"}).database_url
    with pytest.raises(ValueError, match="no address of a database") as error:
        Store(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "models", "default"),
    [
        ({"model": '"a"'}, None, "a"),
        ({"models": '["a", "b"]'}, ["a", "b"], "a"),
        ({"model": '["a", "b"]'}, ["a", "b"], "a"),
        ({"model": '"b"', "models": '["a", "b"]'}, ["a", "b"], "b"),
        ({"model": '"*"'}, "*", None),
        ({"models": '"*"'}, "*", None),
        ({"model": '"any"', "models": '"*"'}, "*", "any"),
    ],
)
def test_entry_can_offer_several_models(file: Path, values: dict[str, str], models: Any, default: str) -> None:
    (found,) = load(file, entry(name='"G"', kind='"gemini"', **values)).backends
    assert (found.models, found.default_model) == (models, default)
    assert Backends([found]).default.name == "G"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": "[]"}, 'models: found [], allowed: "*", or a list of 1 to 200 names of models'),
        ({"models": '"a"'}, "models: found 'a', allowed: \"*\", or a list"),
        ({"model": "[1]"}, "models: found [1], allowed:"),
        ({"models": '["a", " b"]'}, "models: found ['a', ' b'], allowed:"),
        ({"models": '["a", "a"]'}, "models: 'a' is listed twice"),
        ({"model": '"c"', "models": '["a", "b"]'}, "model: found 'c', allowed: one of `models`, 'a', 'b'"),
        ({"model": '"a"', "ignores": '["top_p"]'}, "ignores: found ['top_p'], allowed: [\"temperature\"] or"),
        ({"model": '"a"', "ignores": '"temperature"'}, "ignores: found 'temperature', allowed:"),
        ({"model": '"a"', "ignores": "{ x = 5 }"}, "ignores: found {'x': 5}, allowed:"),
    ],
)
def test_invalid_models_and_ignored_options_are_reported(file: Path, values: dict[str, str], message: str) -> None:
    assert message in error_of(file, entry(name='"G"', kind='"gemini"', **values))


def test_kind_without_provider_has_one_model(file: Path) -> None:
    for values in ({"model": '["bundled"]'}, {"model": '"*"'}, {"ignores": '["temperature"]'}):
        settings = load(file, entry(name='"L"', kind='"local"', **values))
        with pytest.raises(SettingsError, match="not used by the kind 'local'"):
            Backends(settings.backends)


def test_shipped_file_is_valid() -> None:
    """The shipped file is loaded as at a start."""
    found = load_settings({}, {})
    shipped = [one for one in found.backends if one.kind in ("gemini", "openai")]
    assert [one.default_model for one in shipped] == ["gemini-3.8-flash", "openai/gpt-oss-20b"]
    assert shipped[0].ignored(shipped[0].default_model) == {"temperature"}
    Backends(found.backends)


def test_no_module_names_a_hosted_model() -> None:
    """Models come and go within months: only `glassbox.toml` names them."""
    root = Path(__file__).parents[1]
    named = re.compile(r"gemini-\d|gpt-\d|gpt-oss|claude-\d|qwen\d|llama-?\d|mistral-(large|small)", re.IGNORECASE)
    folders = (
        "agent",
        "backends",
        "documents",
        "components",
        "hosting",
        "memory",
        "runs",
        "settings",
        "transports",
        "web",
    )
    kinds = ("py", "js", "html")
    files = [file for folder in folders for kind in kinds for file in (root / folder).rglob(f"*.{kind}")]
    assert len(files) > 100
    assert [str(file) for file in [*files, *root.glob("*.py")] if named.search(file.read_text())] == []


def test_documentation_names_only_the_shipped_gemini_model() -> None:
    root = Path(__file__).parents[1]
    documents = [root / "README.md", *(root / "docs").glob("*.md")]
    named = {name for file in documents for name in re.findall(r"gemini-\d[\w.-]*\w", file.read_text())}
    assert named == {"gemini-3.8-flash"}


# Behind a reverse proxy


def test_no_proxy_is_trusted_by_default_except_on_a_space(file: Path) -> None:
    assert load(file).proxies == []
    on_space = load(file, environ={"SPACE_ID": "zoe/glassbox", "SPACE_HOST": "zoe-glassbox.hf.space"})
    assert "127.0.0.1" in on_space.proxies and "10.0.0.0/8" in on_space.proxies
    assert on_space.space_host == "zoe-glassbox.hf.space"
    assert load(file, "trusted_proxies = []", {"SPACE_ID": "zoe/glassbox"}).proxies == []
    assert load(file, 'trusted_proxies = ["10.0.0.0/8"]').proxies == ["10.0.0.0/8"]


def test_variables_set_hosts_and_proxies(file: Path) -> None:
    environ = {"GLASSBOX_ALLOWED_HOSTS": "a.example, B.example. ,", "GLASSBOX_TRUSTED_PROXIES": "10.0.0.0/8,::1"}
    found = load(file, 'allowed_hosts = ["c.example"]', environ)
    assert (found.allowed_hosts, found.proxies) == (["a.example", "b.example"], ["10.0.0.0/8", "::1"])
    assert load(file, 'allowed_hosts = ["c.example"]', {"GLASSBOX_ALLOWED_HOSTS": ""}).allowed_hosts == []


@pytest.mark.parametrize(
    ("written", "normalized"),
    [
        ("Chat.Example.org", "chat.example.org"),
        ("chat.example.org.", "chat.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("192.168.1.5", "192.168.1.5"),
        ("glassbox", "glassbox"),
        ("my_app", "my_app"),
    ],
)
def test_host_names_are_normalized(file: Path, written: str, normalized: str) -> None:
    assert load(file, f'allowed_hosts = ["{written}"]').allowed_hosts == [normalized]


@pytest.mark.parametrize(
    "host", ["https://a.example", "a.example:8443", "a.example/x", "*", "*.example.org", "", " ", "a b", "a..b"]
)
def test_invalid_host_is_rejected(file: Path, host: str) -> None:
    message = error_of(file, f'allowed_hosts = ["{host}"]')
    assert "allowed_hosts: found" in message and "without scheme, port, path and wildcard" in message


@pytest.mark.parametrize("written", ["/demo", "demo", "/demo/", "demo/", "//demo//", "", "/", " "])
def test_slashes_around_the_root_path_do_not_matter(file: Path, written: str) -> None:
    expected = "/demo" if "demo" in written else ""
    assert load(file, f'root_path = "{written}"').root_path == expected
    from_variable = load(file, 'root_path = "/other"', {"GRADIO_ROOT_PATH": written})
    assert from_variable.root_path == (expected if written else "/other")


def test_root_path_can_be_the_full_address_of_the_page(file: Path) -> None:
    found = load(file, 'allowed_hosts = ["b.example"]', {"GRADIO_ROOT_PATH": "https://a.example:8443/x/y/"})
    assert (found.root_path, found.allowed_hosts) == ("/x/y", ["b.example", "a.example"])
    assert load(file, 'root_path = "https://a.example"').root_path == ""


@pytest.mark.parametrize(
    "written", ["/a b", "/../x", "/a?b", "/a/./b", "/a//b", "ftp://a/x", "https://[/x", "/<a>", "/caf\u00e9", "/a%20b"]
)
def test_invalid_root_path_is_rejected(file: Path, written: str) -> None:
    assert "root_path: found" in error_of(file, f'root_path = "{written}"')
