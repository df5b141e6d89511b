"""The memory modes that the settings name, `[[memory.modes]]`."""

from backends.import_path import ImportPathError, import_object
from memory.modes import MODES, Mode
from memory.own_modes import add_mode
from settings import MemorySettings, SettingsError


def add_own_modes(settings: MemorySettings) -> None:
    """Imports the modes and adds them to the others. Raises SettingsError."""
    for number, one in enumerate(settings.modes, 1):
        try:
            add_mode(_made(one.path, one.options))
        except (ImportPathError, ValueError, TypeError) as e:
            raise SettingsError(f"memory, modes: entry {number}, {one.path}: {e}") from None
        except Exception as e:  # a function may raise anything; its text may hold a key, so only the class is shown
            raise SettingsError(f"memory, modes: entry {number}, {one.path}: fails ({type(e).__name__})") from e
    if settings.default not in MODES:
        allowed = ", ".join(map(repr, MODES))
        raise SettingsError(f"memory, default: found {settings.default!r}, allowed: {allowed}")


def _made(path: str, options: dict[str, object]) -> Mode:
    found = import_object(*path.split(":"))
    mode = found if isinstance(found, Mode) and not options else found(**options)
    if not isinstance(mode, Mode):
        raise TypeError("found no memory mode: make one with own_mode of memory/own_modes.py")
    return mode
