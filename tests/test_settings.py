from pathlib import Path
from typing import Any

import pytest

from settings import Settings, SettingsError, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.toml"


def load(file: Path, text: str = "", environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
    file.write_text(text)
    return load_settings({"config": str(file), **arguments}, environ or {})


def wrong(file: Path, text: str = "", environ: dict[str, str] | None = None, **arguments: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        load(file, text, environ, **arguments)
    return str(refused.value)


def entry(**values: str) -> str:
    return "[[backends]]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def test_an_empty_file_gives_the_local_and_the_scripted_backend(file: Path) -> None:
    found = load(file)
    assert [b.kind for b in found.backends] == ["local", "scripted"]
    assert found.memory.default == "tokens"
    assert found.limits.reply_tokens == 1024
    assert (found.auth, found.share, found.secret, found.on_space) == (None, False, None, False)
    assert found.database_url.endswith("glassbox.db")


def test_the_files_values_beat_the_defaults(file: Path) -> None:
    text = entry(name='"Mine"', kind='"scripted"', options="{ speed = 2 }") + "[memory]\nwindow_turns = 9\n"
    found = load(file, text)
    assert [(b.name, b.options) for b in found.backends] == [("Mine", {"speed": 2})]
    assert (found.memory.window_turns, found.memory.default) == (9, "tokens")


def test_a_variable_beats_the_file(file: Path) -> None:
    text = entry(name='"Mine"', kind='"local"', model='"bundled"')
    environ = {"GLASSBOX_LOCAL_MODEL": "/models/other.gguf"}
    assert [b.model for b in load(file, text, environ).backends] == ["/models/other.gguf"]
    assert load(file, "", environ).backends[0].model == "/models/other.gguf"
    assert load(file, entry(name='"S"', kind='"scripted"'), environ).backends[0].model is None


def test_an_argument_beats_a_variable(file: Path, tmp_path: Path) -> None:
    environ = {"GLASSBOX_AUTH": "ann:one", "GLASSBOX_CONFIG": str(tmp_path / "absent.toml")}
    assert load(file, environ=environ).auth == ("ann", "one")
    assert load(file, environ=environ, auth="ben:two:three").auth == ("ben", "two:three")


def test_variables_set_what_they_name(tmp_path: Path, file: Path) -> None:
    environ = {
        "GLASSBOX_DATA": str(tmp_path / "kept"),
        "GLASSBOX_SECRET": "hush",
        "SPACE_ID": "someone/glassbox",
    }
    found = load(file, environ=environ)
    assert found.data == tmp_path / "kept"
    assert found.database_url == f"sqlite:///{tmp_path / 'kept' / 'glassbox.db'}"
    assert (found.secret, found.on_space) == ("hush", True)
    elsewhere = load(file, environ={**environ, "GLASSBOX_DATABASE_URL": "sqlite:////elsewhere/x.db"})
    assert elsewhere.database_url == "sqlite:////elsewhere/x.db"


def test_the_config_variable_names_the_file(file: Path) -> None:
    file.write_text('system_prompt = "Be brief."')
    assert load_settings({}, {"GLASSBOX_CONFIG": str(file)}).system_prompt == "Be brief."


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError):
        Settings().host = "0.0.0.0"  # type: ignore[misc]


def test_a_syntax_error_has_its_file_and_line(file: Path) -> None:
    told = wrong(file, 'system_prompt = "x"\n\n[memory\n')
    assert str(file) in told
    assert "line 3" in told


def test_an_unknown_kind_is_told_with_those_allowed(file: Path) -> None:
    told = wrong(file, entry(name='"A"', kind='"local"') + entry(name='"B"', kind='"opnai"'))
    assert "backends entry 2 ('B'), kind" in told
    assert "found 'opnai'" in told
    for kind in ("local", "langchain", "scripted"):
        assert f"'{kind}'" in told
    assert "entry 1" not in told


def test_a_name_used_twice_is_told(file: Path) -> None:
    told = wrong(file, entry(name='"Same"', kind='"local"') + entry(name='"Same"', kind='"scripted"'))
    assert "'Same' is used twice" in told


@pytest.mark.parametrize(
    ("text", "told"),
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
    ],
)
def test_a_wrong_value_is_told_with_its_place(file: Path, text: str, told: str) -> None:
    message = wrong(file, text)
    assert told in message
    assert message.startswith(f"{file}: ")


def test_every_problem_is_told(file: Path) -> None:
    told = wrong(file, "[memory]\nwindow_turns = 0\n[limits]\nruns = 0\n")
    assert len(told.splitlines()) == 2


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    absent, folder, binary = tmp_path / "absent.toml", tmp_path / "folder", tmp_path / "binary.toml"
    folder.mkdir()
    binary.write_bytes(b'x = "\xff"')
    for path, told in [(absent, "no such file"), (folder, "cannot be read"), (binary, "not UTF-8")]:
        for named in ({"config": str(path)}, {}):
            environ = {} if named else {"GLASSBOX_CONFIG": str(path)}
            with pytest.raises(SettingsError) as refused:
                load_settings(named, environ)
            assert str(path) in str(refused.value)
            assert told in str(refused.value)


@pytest.mark.parametrize("auth", ["ann", "ann:", ":secret", ":"])
def test_a_login_needs_both_parts_and_is_not_echoed(file: Path, auth: str) -> None:
    told = wrong(file, auth=auth)
    assert "USER:PASSWORD" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("arguments", "told"), [({"port": 0}, "port: found 0"), ({"port": 70_000}, "port: found 70000")]
)
def test_a_wrong_argument_is_told(file: Path, arguments: dict[str, Any], told: str) -> None:
    assert told in wrong(file, **arguments)


def test_an_unknown_database_is_told_without_its_password(file: Path) -> None:
    told = wrong(file, environ={"GLASSBOX_DATABASE_URL": "mysql://user:secret@host/db"})
    assert "GLASSBOX_DATABASE_URL: found 'mysql'" in told
    assert "secret" not in told
