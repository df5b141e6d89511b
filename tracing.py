"""LangSmith, which LangChain sends all messages and replies to where a variable of the environment says so.

Visitors' words leave this server only if the settings say so.
"""

import re
from collections.abc import MutableMapping

_VARIABLE = re.compile(r"(LANGSMITH|LANGCHAIN)_(\w+_)?(TRACING(_V2)?|HANDLER)")
"""Also those of other services that LangChain has traced to, as LANGCHAIN_WANDB_TRACING."""
NOTE = "The operator sends all messages and replies on this page to LangSmith as well."
"""What pages say where tracing is on."""
_OFF = ("", "0", "false")


def use_langsmith(environ: MutableMapping[str, str], on: bool) -> list[str]:
    """Turns tracing on or off for the whole process, whatever the environment says.

    Returns what the operator should know: which variables have no effect.
    """
    from langsmith import configure

    found = [name for name in environ if _VARIABLE.fullmatch(name)]
    asked = [name for name in found if environ.pop(name).strip().lower() not in _OFF]
    configure(enabled=on)
    if on or not asked:
        return []
    how = "to send all messages and replies to LangSmith, set langsmith = true under [tracing]"
    return [f"{', '.join(sorted(asked))}: nothing is traced; {how}"]
