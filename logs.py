"""The log: one line for each thing, with the id of the run that it is about, without keys and without visitors' words.

Everything that is logged in this process goes through here, also by libraries. What could end a line is escaped, so
that no text from outside can write a line of its own.
"""

import copy
import json
import logging
import re
import sys
import warnings
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

from backends.keys import redact_keys
from outlets import Outlet
from runs.errors import ChatError

Form = Literal["text", "json"]
_OURS = ("glassbox", "agent", "documents", "runs", "hosting", "transports", "memory", "components")
_ENDS_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLACED = ("level", "logger", "event", "timestamp", "exception")
_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def begin_log(form: Form) -> None:
    """Text for a terminal, or a JSON object a line; what visitors do in our own code from INFO on, all else from
    WARNING.
    """
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(log_formatter(form))
    if isinstance(sys.stderr, Outlet):
        sys.stderr.lost = lambda lines: _lost(lines, handler)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")  # they quote what a model wrote


def log_formatter(form: Form) -> logging.Formatter:
    render = _as_json if form == "json" else _as_text
    return _Formatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _without_keys,
            render,
        ],
    )


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Clears the arguments of our own lines, before they are part of a text."""

    def format(self, record: logging.LogRecord) -> str:
        if _is_ours(record.name) and isinstance(record.args, tuple):
            record = copy.copy(record)
            record.args = tuple(map(_without_key, record.args or ()))
        return super().format(record)


def _lost(lines: int, handler: logging.Handler) -> str:
    told = "%d lines are missing here: nobody read the log"
    return handler.format(logging.LogRecord("glassbox", logging.WARNING, "", 0, told, (lines,), None)) + "\n"


def take_over(name: str) -> None:
    """Lets a library's logger, which has handlers of its own, write here."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True


def _without_keys(logger: Any, name: str, event: EventDict) -> EventDict:
    """Clears what can hold a key: a library's texts, and any traceback. The arguments of our own lines are cleared
    already, and their other fields hold none: a visitor whose "key" is `complete` must not change anybody's lines.

    This is done before anything is escaped, since an escaped key is not found.
    """
    fields = ("exception",) if _is_ours(str(event.get("logger"))) else ("exception", "event")
    return {name: redact_keys(str(value)) if name in fields else value for name, value in event.items()}


def _without_key(argument: Any) -> Any:
    """An argument of one of our own lines. A ChatError's sentence holds no key."""
    if not isinstance(argument, str | BaseException) or isinstance(argument, ChatError):
        return argument
    told = redact_keys(text := str(argument))
    return argument if told == text else told


def _is_ours(logger: str) -> bool:
    return logger.partition(".")[0] in (*_OURS, "backends")


def _as_json(logger: Any, name: str, event: EventDict) -> str:
    return json.dumps(event, default=str)


def _as_text(logger: Any, name: str, event: EventDict) -> str:
    """`INFO agent.turns: what happened run_id=… more=…`, and a traceback marked line by line."""
    more = [f"{key}={_escaped(str(value))}" for key, value in event.items() if key not in _PLACED]
    told = " ".join([_escaped(str(event.get("event", ""))), *more])
    trace = "".join(f"\n  | {_escaped(line)}" for line in str(event.get("exception", "")).splitlines() if line)
    return f"{str(event.get('level', '')).upper()} {event.get('logger')}: {told}{trace}"


def _escaped(text: str) -> str:
    return _ENDS_LINE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
