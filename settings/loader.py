"""Loads the settings from the command line, the environment and the file."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from settings.backends import BackendSettings
from settings.documents import DocumentSettings
from settings.environment import Environment, parse_login
from settings.mcp import McpSettings, missing_variable
from settings.server import FileSettings, Settings
from settings.validation import SettingsError, validate

_FILE = Path(__file__).parent.parent / "glassbox.toml"
_OVERRIDDEN = {"port": "GRADIO_SERVER_PORT", "auth": "GLASSBOX_AUTH"}
"""Variables that are ignored if an argument is given."""


def load_settings(arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Loads all settings. `arguments` are those of the command line, None where not given. Raises SettingsError."""
    given = {name: value for name, value in arguments.items() if value is not None}
    ignored = {_OVERRIDDEN.get(name) for name in given}
    environment = Environment.read({name: value for name, value in environ.items() if name not in ignored})
    named = given.get("config") or environment.config
    path = Path(named or _FILE)
    values = _read_file(path, must_exist=bool(named))
    values |= environment.model_dump(include={"allowed_hosts", "trusted_proxies", "root_path"}, exclude_none=True)
    if environment.local_model:
        _use_local_model(values, environment.local_model)
    file = validate(FileSettings, values, str(path))
    on_space, share = environment.space_id is not None, bool(given.get("share"))
    if share or on_space:
        values["limits"] = file.limits.with_public_limits().model_dump()
    data = _writable_folder(environment.data) if environment.data else _default_data(on_space)
    values |= {
        "host": given.get("host"),
        "port": given.get("port", environment.port),
        "share": share,
        "auth": _login(given["auth"]) if "auth" in given else environment.auth,
        "data": data,
        "database_url": environment.database_url or f"sqlite:///{data / 'glassbox.db'}",
        "secret": environment.secret,
        "folder": path.absolute().parent,
        "on_space": on_space,
        "space_host": environment.space_host,
        "sign_in": on_space and environment.oauth_client_id is not None,
        "metrics_token": SecretStr(token) if (token := environment.metrics_token.strip()) else None,
        "log": environment.log or ("json" if on_space else "text"),
        "log_messages": environment.log_messages,
        "keys": _keys(file.backends, file.documents, environ),
        "mcp_variables": _mcp_variables(file.mcp, environ),
    }
    return validate(Settings, values, "the command line")


def _read_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if must_exist:
            message = "there is no such file. Name another with --config or GLASSBOX_CONFIG."
            raise SettingsError(f"{path}: {message}") from None
        return {}
    except UnicodeDecodeError as e:
        raise SettingsError(f"{path}: not UTF-8 text (byte {e.start})") from None
    except OSError as e:
        raise SettingsError(f"{path}: cannot be read ({e.strerror})") from None
    except tomllib.TOMLDecodeError as e:
        raise SettingsError(f"{path}: not valid TOML: {e}") from None


def _use_local_model(values: dict[str, Any], model: str) -> None:
    """Replaces the `model` of the first local backend by that of GLASSBOX_LOCAL_MODEL, which is loaded at the start."""
    entries = values.setdefault("backends", [b.model_dump(exclude_unset=True) for b in FileSettings().backends])
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("kind") == "local":
            entry |= {"model": model, "preload": True}
            return


def _writable_folder(name: str) -> Path:
    """Creates the folder if it does not exist. Raises SettingsError if it is not writable."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SettingsError(f"GLASSBOX_DATA: found {name!r}, allowed: a folder ({e.strerror})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"GLASSBOX_DATA: found {name!r}, allowed: a folder with write permission")
    return folder


def _default_data(on_space: bool) -> Path:
    """Returns a Space's persistent disk, or the home folder, since the app's folder may be read-only there."""
    if not on_space:
        return Path("data")
    disk = Path("/data")
    return disk if disk.is_dir() and os.access(disk, os.W_OK) else Path.home() / "glassbox-data"


def _login(text: str) -> tuple[str, str]:
    try:
        return parse_login(text)
    except ValueError as e:
        raise SettingsError(f"--auth: {e}") from None


def _keys(
    backends: Sequence[BackendSettings], documents: DocumentSettings, environ: Mapping[str, str]
) -> dict[str, SecretStr]:
    """Reads the variables with keys. Raises SettingsError if one of `headers`, `query` or `documents` is missing."""
    if (needed := documents.key_name) and not environ.get(needed, "").strip():
        raise SettingsError(f"documents, embeddings: the variable {needed} with the key is not set; set it")
    for backend in backends:
        for name in backend.variables:
            if not environ.get(name, "").strip():
                raise SettingsError(f"backend {backend.name!r}: headers, query: the variable {name} is not set; set it")
    names = {name for backend in backends for name in (backend.key_name, *backend.variables) if name}
    names |= {needed} if needed else set()
    return {name: SecretStr(key) for name in names if (key := environ.get(name, "").strip())}


def _mcp_variables(servers: Sequence[McpSettings], environ: Mapping[str, str]) -> dict[str, SecretStr]:
    """Reads the variables that the entries of `mcp` name. Raises SettingsError if one is missing."""
    if missing := missing_variable(servers, environ):
        raise SettingsError(missing)
    return {name: SecretStr(environ[name].strip()) for server in servers for name in server.variables}
