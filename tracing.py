"""Tracing with LangSmith, to which LangChain sends all messages and replies if an environment variable says so.

Here the settings decide: visitors' words leave this server only with `[tracing] langsmith = true`.
"""

import re
from collections.abc import MutableMapping

_VARIABLE = re.compile(r"(LANGSMITH|LANGCHAIN)_(\w+_)?(TRACING(_V2)?|HANDLER)")
"""Variables that turn tracing on, including those of other services such as LANGCHAIN_WANDB_TRACING."""
NOTE = "The operator sends all messages and replies on this page to LangSmith as well."
"""Shown on the pages if tracing is on."""
_OFF = ("", "0", "false")


def configure_langsmith(environ: MutableMapping[str, str], on: bool) -> list[str]:
    """Turns tracing on or off for the whole process, and removes the environment variables.

    Returns warnings for the operator about variables that have no effect.
    """
    from langsmith import configure

    found = [name for name in environ if _VARIABLE.fullmatch(name)]
    ignored = [name for name in found if environ.pop(name).strip().lower() not in _OFF]
    configure(enabled=on)
    if on or not ignored:
        return []
    advice = "to send all messages and replies to LangSmith, set langsmith = true under [tracing]"
    return [f"{', '.join(sorted(ignored))}: nothing is traced; {advice}"]
