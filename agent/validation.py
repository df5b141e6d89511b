"""Validation of messages and options."""

from memory.mode_options import check_options
from memory.modes import Mode
from memory.options import ModeParameters, TurnOptions, parameter_range
from runs.errors import ChatError
from runs.text import clean_text
from settings import LimitSettings

_MOST_TEMPERATURE = 2.0


def validate_message(message: str, limits: LimitSettings) -> str:
    """Returns a message as it is stored. Raises ChatError if it is too long or empty."""
    most = limits.message_characters
    if len(message) > most:
        raise ChatError("too_large", f"Your message has {len(message):,} characters; at most {most:,} can be sent.")
    text = clean_text(message).strip("\n")
    if not text.strip():
        raise ChatError("invalid_request", "The message is empty: write something first.")
    return text


def validate_options(options: TurnOptions, limits: LimitSettings, mode: Mode) -> TurnOptions:
    """Returns options as they are stored. Raises ChatError for a value that is out of its range."""
    check_options(mode.name, mode.options, options.mode_options or {})
    if options.temperature is not None and not 0 <= options.temperature <= _MOST_TEMPERATURE:
        raise ChatError("invalid_request", f"The temperature can be 0 to {_MOST_TEMPERATURE:g}.")
    if options.max_tokens is not None and not 1 <= options.max_tokens <= limits.reply_tokens:
        raise ChatError("invalid_request", f"The max reply length can be 1 to {limits.reply_tokens:,} tokens.")
    if len(options.system_prompt or "") > limits.message_characters:
        most = f"{limits.message_characters:,} characters"
        raise ChatError("too_large", f"The system prompt is too long: at most {most} can be sent.")
    for name, parameter in ModeParameters.model_fields.items():
        (least, largest), value = parameter_range(name), getattr(options, name)
        if value is not None and not least <= value <= largest:
            raise ChatError("invalid_request", f"{parameter.description} can be {least:,} to {largest:,}.")
    if options.system_prompt is None:
        return options
    return options.model_copy(update={"system_prompt": clean_text(options.system_prompt)})
