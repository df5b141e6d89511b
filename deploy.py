"""Deploys the files that git tracks to a Hugging Face Space, in one commit: `make deploy SPACE=owner/name`.

It lists the files and asks before it uploads them. The token is that of the Hub client (`hf auth login`, or HF_TOKEN).
Secrets are given by name and their values read from the environment, so that no command contains them.
"""

import argparse
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hosting.proxies import use_proxies

_FOLDER = Path(__file__).parent
_EXCLUDED = ("tests/", "bench/", ".ci/")
"""Folders that a Space does not need."""


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


def read_secrets(names: Sequence[str]) -> dict[str, str]:
    """Reads the values of environment variables. Raises DeployError for an invalid name or a missing value."""
    for name in names:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise DeployError("SECRETS: give the names of variables, such as GOOGLE_API_KEY, never their values.")
    if missing := [name for name in names if not os.environ.get(name, "").strip()]:
        raise DeployError(f"SECRETS: {', '.join(missing)}: not set in the environment. Set it, or leave it out.")
    return {name: os.environ[name].strip() for name in names}


def deploy(space: str, secrets: Sequence[str] = (), *, private: bool = False, sure: bool = False) -> str:
    """Uploads the files and returns the address of the Space. Raises DeployError; then nothing was uploaded."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", space):
        raise DeployError(f"SPACE: found {space!r}, allowed: owner/name, as in `make deploy SPACE=zoe/glassbox`")
    files, values = files_to_upload(), read_secrets(secrets)
    size = sum((_FOLDER / file).stat().st_size for file in files)
    print(f"To https://huggingface.co/spaces/{space}, {len(files)} files, {size / 1e6:.1f} MB:")
    for file in files:
        print(f"  {file}")
    if values:
        print(f"and the secrets {', '.join(values)}.")
    api = HfApi(token=_token())
    try:
        who = api.whoami()["name"]
        if not sure and not _confirm(f"Upload this as {who}?"):
            raise DeployError("Nothing was uploaded.")
        api.create_repo(space, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        for name, value in values.items():
            api.add_space_secret(space, name, value)
        added = [CommitOperationAdd(file.as_posix(), _FOLDER / file) for file in files]
        api.create_commit(space, added, commit_message="Glassbox", repo_type="space")
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
    parser.add_argument("--private", action="store_true", help="make the Space private, if it is new")
    parser.add_argument("--sure", action="store_true", help="do not ask")
    arguments = parser.parse_args(argv)
    for problem in use_proxies(os.environ, None, []):
        print(problem, file=sys.stderr)
    try:
        print(deploy(arguments.space, arguments.secrets, private=arguments.private, sure=arguments.sure))
    except DeployError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
