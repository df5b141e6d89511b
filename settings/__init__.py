"""The settings: one frozen value that is read at the start and passed on as an argument.

An argument of the command line overrides a `GLASSBOX_*` variable, which overrides `glassbox.toml`, which overrides the
default. No other module reads the environment. Invalid settings raise a `SettingsError` that names file, line or key,
what was found and what is allowed.
"""

from settings.backends import BackendSettings
from settings.limits import PUBLIC_LIMITS, LimitSettings
from settings.loader import load_settings
from settings.memory import MemorySettings
from settings.server import ROOT_PATH, FileSettings, Settings
from settings.tools import ToolSettings, TracingSettings
from settings.validation import SettingsError

__all__ = [
    "PUBLIC_LIMITS",
    "ROOT_PATH",
    "BackendSettings",
    "FileSettings",
    "LimitSettings",
    "MemorySettings",
    "Settings",
    "SettingsError",
    "ToolSettings",
    "TracingSettings",
    "load_settings",
]
