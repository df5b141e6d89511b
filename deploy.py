"""Deploys the files that git tracks to a Hugging Face Space, in one commit: `make deploy SPACE=owner/name`.

With CONFIG=my/glassbox.toml it also uploads the folder of these settings, tracked or not, as `demo/`, and the Space
starts with them; what the folder's `requirements.txt` lists is installed too.

It lists the files and asks before it uploads them. The token is that of the Hub client (`hf auth login`, or HF_TOKEN).
Secrets and variables are given by name and their values read from the environment, so that no command contains them.
"""

import argparse
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hosting.proxies import use_proxies

_FOLDER = Path(__file__).parent
_EXCLUDED = ("tests/", "bench/", ".ci/")
"""Folders that a Space does not need."""


_DEMO = "demo"
"""The folder of a demo on the Space."""
_UNUSED = {"__pycache__", "data", "node_modules"}
"""Folders of a demo that are not uploaded, besides hidden ones."""
_MOST_FILES = 1000
"""The most files of a demo: more are a sign of a wrong folder."""


class DeployError(Exception):
    """A failed deployment. The message says what to do."""


def files_to_upload(folder: Path = _FOLDER) -> list[Path]:
    """Lists the files that git tracks, without tests and benchmarks. Raises DeployError."""
    git = ["git", "-C", str(folder), "ls-files", "-z"]
    listed = subprocess.run(git, capture_output=True, text=True)  # nosec B603 # no argument comes from outside
    if listed.returncode:
        raise DeployError("This folder is not a clone of a git repository: clone it, and deploy from there.")
    names = [name for name in listed.stdout.split("\0") if name and not name.startswith(_EXCLUDED)]
    return [Path(name) for name in names if (folder / name).is_file()]


def demo_files(config: Path) -> dict[str, Path]:
    """Returns the files beside the settings `config` by their names on the Space. Raises DeployError."""
    if not config.is_file():
        raise DeployError(f"CONFIG: {config} is not there.")
    folder = config.resolve().parent
    if folder == _FOLDER:
        return {}  # it is one of the files that git tracks, or is meant to stay here
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not any(part.startswith(".") or part in _UNUSED for part in name.parts):
            found[f"{_DEMO}/{name.as_posix()}"] = file
    if len(found) > _MOST_FILES:
        raise DeployError(
            f"CONFIG: {folder} has {len(found):,} files, more than {_MOST_FILES:,}: is it the right folder?"
        )
    return found


def read_values(names: Sequence[str], option: str) -> dict[str, str]:
    """Reads the values of environment variables. Raises DeployError for an invalid name or a missing value."""
    for name in names:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise DeployError(f"{option}: give the names of variables, such as GOOGLE_API_KEY, never their values.")
    if missing := [name for name in names if not os.environ.get(name, "").strip()]:
        raise DeployError(f"{option}: {', '.join(missing)}: not set in the environment. Set it, or leave it out.")
    return {name: os.environ[name].strip() for name in names}


def deploy(
    space: str,
    secrets: Sequence[str] = (),
    variables: Sequence[str] = (),
    *,
    config: str = "",
    hardware: str = "",
    private: bool = False,
    sure: bool = False,
) -> str:
    """Uploads the files and returns the address of the Space. Raises DeployError; then nothing was uploaded."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", space):
        raise DeployError(f"SPACE: found {space!r}, allowed: owner/name, as in `make deploy SPACE=zoe/glassbox`")
    files = {file.as_posix(): _FOLDER / file for file in files_to_upload()}
    values, settings = read_values(secrets, "SECRETS"), read_values(variables, "VARIABLES")
    if config:
        files |= (own := demo_files(Path(config)))
        settings["GLASSBOX_CONFIG"] = f"{_DEMO}/{Path(config).name}" if own else Path(config).name
        if not own and Path(config).name not in files:
            raise DeployError(
                f"CONFIG: git does not track {config}. Put it into a folder of its own, or add it to git."
            )
    size = sum(file.stat().st_size for file in files.values())
    print(f"To https://huggingface.co/spaces/{space}, {len(files)} files, {size / 1e6:.1f} MB:")
    for name in files:
        print(f"  {name}")
    for kind, names in (("secrets", values), ("variables", settings)):
        if names:
            print(f"and the {kind} {', '.join(names)}.")
    if hardware:
        print(f"and the hardware {hardware}, which may cost money.")
    api = HfApi(token=_token())
    try:
        who = api.whoami()["name"]
        if not sure and not _confirm(f"Upload this as {who}?"):
            raise DeployError("Nothing was uploaded.")
        api.create_repo(space, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        for name, value in values.items():
            api.add_space_secret(space, name, value)
        for name, value in settings.items():
            api.add_space_variable(space, name, value)
        added = [CommitOperationAdd(name, _content(name, file, files)) for name, file in files.items()]
        api.create_commit(space, added, commit_message="Glassbox", repo_type="space")
        if hardware:
            api.request_space_hardware(space, hardware)
    except RepositoryNotFoundError as e:
        raise DeployError(
            f"{space} was not found or is not writable: are you its owner, or a member of the organisation?"
        ) from e
    except HfHubHTTPError as e:
        status = e.response.status_code if e.response is not None else 0
        reasons = {401: "the token is not accepted", 403: "the token may not write here: create one with write access"}
        raise DeployError(f"The Hub refused ({status}): {reasons.get(status, 'see its message above')}.") from e
    except DeployError:
        raise
    except Exception as e:  # of the HTTP client that the Hub's library uses
        raise DeployError(
            f"The Hub cannot be reached, or sends an invalid answer ({type(e).__name__}): check the network."
        ) from e
    return f"https://huggingface.co/spaces/{space}"


def _content(name: str, file: Path, files: Mapping[str, Path]) -> Path | bytes:
    """Returns what is uploaded as a file: the requirements are those of this project and of the demo."""
    own = files.get(f"{_DEMO}/requirements.txt")
    if name != "requirements.txt" or own is None:
        return file
    return file.read_bytes().rstrip() + b"\n# Of the demo:\n" + own.read_bytes()


def _token() -> str:
    if token := get_token():
        return token
    if sys.stdin.isatty() and (token := getpass.getpass("A token of the Hub with write access (it is not shown): ")):
        return token.strip()
    raise DeployError("No token: run `.venv/bin/hf auth login` first, or set HF_TOKEN.")


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise DeployError("There is no terminal to confirm in: run it in one, or with SURE=1.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="make deploy", description=__doc__)
    parser.add_argument("space", help="owner/name")
    parser.add_argument("--secrets", nargs="*", default=[], metavar="NAME", help="variables to set as secrets")
    parser.add_argument("--variables", nargs="*", default=[], metavar="NAME", help="variables to set, readable by all")
    parser.add_argument("--config", default="", metavar="FILE", help="settings whose folder is the demo")
    parser.add_argument("--hardware", default="", help="the Space's hardware, such as cpu-upgrade")
    parser.add_argument("--private", action="store_true", help="make the Space private, if it is new")
    parser.add_argument("--sure", action="store_true", help="do not ask")
    arguments = parser.parse_args(argv)
    for problem in use_proxies(os.environ, None, []):
        print(problem, file=sys.stderr)
    try:
        print(deploy(**vars(arguments)))
    except DeployError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
