"""The log: one line for each record, with the id of its run, without keys and without visitors' words.

All records of this process are written here, those of libraries too. Characters that could end a line are escaped, so
that a text from outside cannot forge a line.
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
from hosting.output import NonBlockingWriter
from runs.errors import ChatError

Form = Literal["text", "json"]
_OURS = ("glassbox", "agent", "documents", "runs", "hosting", "transports", "memory", "components")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MAIN_FIELDS = ("level", "logger", "event", "timestamp", "exception")
_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logging(form: Form) -> None:
    """Writes text or a JSON object a line to standard error: our own records from INFO on, others from WARNING on."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(log_formatter(form))
    if isinstance(sys.stderr, NonBlockingWriter):
        sys.stderr.dropped_notice = lambda lines: _missing_lines(lines, handler)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")  # they quote what a model wrote


def log_formatter(form: Form) -> logging.Formatter:
    """Creates the formatter of a form."""
    render = _as_json if form == "json" else _as_text
    return _Formatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _redact_event,
            render,
        ],
    )


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Redacts the arguments of our own records before they are formatted."""

    def format(self, record: logging.LogRecord) -> str:
        if _is_ours(record.name) and isinstance(record.args, tuple):
            record = copy.copy(record)
            record.args = tuple(map(_redact_argument, record.args or ()))
        return super().format(record)


def _missing_lines(lines: int, handler: logging.Handler) -> str:
    message = "%d lines are missing here: nobody read the log"
    return handler.format(logging.LogRecord("glassbox", logging.WARNING, "", 0, message, (lines,), None)) + "\n"


def use_root_handler(name: str) -> None:
    """Removes the handlers of a library's logger, so that its records are written here."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True


def _redact_event(logger: Any, name: str, event: EventDict) -> EventDict:
    """Redacts keys in tracebacks and in libraries' messages, before they are escaped.

    The arguments of our own records are redacted already. Other fields contain no keys and stay as they are: a visitor
    whose "key" is `complete` must not change other lines.
    """
    fields = ("exception",) if _is_ours(str(event.get("logger"))) else ("exception", "event")
    return {name: redact_keys(str(value)) if name in fields else value for name, value in event.items()}


def _redact_argument(argument: Any) -> Any:
    """Redacts an argument of our own records. The message of a ChatError contains no key."""
    if not isinstance(argument, str | BaseException) or isinstance(argument, ChatError):
        return argument
    redacted = redact_keys(text := str(argument))
    return argument if redacted == text else redacted


def _is_ours(logger: str) -> bool:
    return logger.partition(".")[0] in (*_OURS, "backends")


def _as_json(logger: Any, name: str, event: EventDict) -> str:
    return json.dumps(event, default=str)


def _as_text(logger: Any, name: str, event: EventDict) -> str:
    """Formats a record as `INFO agent.turns: message run_id=… field=…`; each line of a traceback begins with `  | `."""
    fields = [f"{key}={_escaped(str(value))}" for key, value in event.items() if key not in _MAIN_FIELDS]
    message = " ".join([_escaped(str(event.get("event", ""))), *fields])
    trace = "".join(f"\n  | {_escaped(line)}" for line in str(event.get("exception", "")).splitlines() if line)
    return f"{str(event.get('level', '')).upper()} {event.get('logger')}: {message}{trace}"


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
