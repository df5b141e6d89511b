"""The section `[page]`: how the page looks, and what it says."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from settings.validation import STRICT, check_origin

_LEAST_CONTRAST = 4.5
"""Of text to its background: WCAG 2.2, 1.4.3. Source: https://www.w3.org/TR/WCAG22/#contrast-minimum"""
_LIGHT, _DARK = "#ffffff", "#18181b"
"""The backgrounds of the two schemes."""
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_STEP = 0.02


class Starter(BaseModel):
    """A prompt that the page offers."""

    model_config = STRICT

    title: Annotated[str, Field(min_length=1, max_length=80)]
    message: Annotated[str, Field(min_length=1, max_length=4000)]
    about: Annotated[str, Field(max_length=120)] = ""
    """A second line."""
    picture: str | None = None
    """An emoji, or an image file beside the settings."""
    backend: str | None = None
    """The backend that is chosen with it."""
    memory: str | None = None
    """The memory mode that is chosen with it."""


class Link(BaseModel):
    """A link below the prompts."""

    model_config = STRICT

    text: Annotated[str, Field(min_length=1, max_length=80)]
    url: Annotated[str, Field(max_length=500)]

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not re.match(r"https?://[^\s\"'<>]+$|mailto:[^\s\"'<>]+$", url):
            raise ValueError(f"found {url!r}, allowed: an address that begins with https://, http:// or mailto:")
        return url


PROMPTS = [
    Starter(
        title="Write a short story",
        about="about a lighthouse keeper and a whale",
        message="Write a short story about a lighthouse keeper and a whale.",
    ),
    Starter(
        title="Show me some Python",
        about="that checks for palindromes",
        message="Show me a Python function that checks whether a word is a palindrome, and explain it.",
    ),
    Starter(title="Run a tool yourself", about="/calculator 17*23", message="/calculator 17*23"),
    Starter(
        title="Search this project's guide",
        about="/search how do I add a backend",
        message="/search how do I add a backend",
    ),
]
"""The prompts of the shipped page."""


class PageSettings(BaseModel):
    """The section `[page]`."""

    model_config = STRICT

    title: Annotated[str, Field(min_length=1, max_length=60)] = "Glassbox"
    tagline: Annotated[str, Field(max_length=200)] = "Talk to a language model, and watch it work."
    """The heading of an empty conversation."""
    intro: str | None = None
    """A Markdown file beside the settings: the text below the heading."""
    logo: str | None = None
    """An emoji, or an image file beside the settings."""
    favicon: str | None = None
    """The same for the icon of the browser's tab; by default the logo."""
    accent: str | None = None
    """The colour of buttons, links and the focus, as `#rrggbb`."""
    accent_dark: str | None = None
    """The same on dark pages; by default a lighter `accent`."""
    prompts: Annotated[list[Starter], Field(max_length=12)] | None = None
    """The prompts that an empty conversation offers; by default `PROMPTS`."""
    links: Annotated[list[Link], Field(max_length=8)] = []
    """Links below the prompts."""
    hide: list[Literal["conversations", "panel", "options", "model", "memory", "share"]] = []
    """Parts of the page that are not shown."""
    panel: Literal["open", "closed"] = "open"
    """Whether a wide page begins with the panel beside it, or with a button that shows it."""
    embed_origins: Annotated[list[str], Field(max_length=50)] = []
    """Sites whose pages may show the slim page `/?embed=1` in a frame, as https://HOST."""

    @field_validator("embed_origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        return [check_origin(origin) for origin in origins]

    @field_validator("accent", "accent_dark")
    @classmethod
    def _check_colour(cls, colour: str | None) -> str | None:
        if colour is not None and not _COLOUR.fullmatch(colour.lower()):
            raise ValueError(f"found {colour!r}, allowed: a colour such as '#7c3aed'")
        return colour and colour.lower()

    @model_validator(mode="after")
    def _check_contrast(self) -> Self:
        if self.accent_dark and not self.accent:
            raise ValueError("accent_dark: has no effect without `accent`")
        for name, colour, background, scheme in (
            ("accent", self.accent, _LIGHT, "white"),
            ("accent_dark", self.accent_dark, _DARK, "dark pages"),
        ):
            if colour and contrast(colour, background) < _LEAST_CONTRAST:
                near = _readable(colour, background)
                found = f"{name}: {colour} has a contrast of {contrast(colour, background):.1f} to {scheme}"
                raise ValueError(f"{found}, allowed: at least {_LEAST_CONTRAST}, such as {near}")
        return self

    @property
    def accents(self) -> tuple[str, str] | None:
        """The accent colours on light and on dark pages; None for those of the shipped styles."""
        return (self.accent, self.accent_dark or _readable(self.accent, _DARK)) if self.accent else None


def contrast(one: str, other: str) -> float:
    """Returns the contrast of two colours, 1 to 21, as WCAG defines it."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """The relative luminance of a colour, 0 to 1. Source: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _readable(colour: str, background: str) -> str:
    """The nearest shade of a colour that can be read on a background."""
    towards = 0 if _luminance(background) > 0.5 else 255
    share, found = 0.0, colour
    while contrast(found, background) < _LEAST_CONTRAST and share < 1:
        share += _STEP
        parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        found = "#" + "".join(f"{round(part + (towards - part) * min(1, share)):02x}" for part in parts)
    return found
