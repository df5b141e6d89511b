"""The settings: one frozen value that is read at the start and passed on as an argument.

An argument of the command line overrides a `GLASSBOX_*` variable, which overrides `glassbox.toml`, which overrides the
default. No other module reads the environment. Invalid settings raise a `SettingsError` that names file, line or key,
what was found and what is allowed.
"""

from settings.backends import BackendSettings as BackendSettings
from settings.documents import DocumentSettings as DocumentSettings
from settings.limits import PUBLIC_LIMITS as PUBLIC_LIMITS
from settings.limits import LimitSettings as LimitSettings
from settings.loader import load_settings as load_settings
from settings.mcp import McpSettings as McpSettings
from settings.memory import MemorySettings as MemorySettings
from settings.page import PageSettings as PageSettings
from settings.server import ROOT_PATH as ROOT_PATH
from settings.server import FileSettings as FileSettings
from settings.server import Settings as Settings
from settings.tools import ToolSettings as ToolSettings
from settings.tools import TracingSettings as TracingSettings
from settings.validation import SettingsError as SettingsError
