"""The page's own look and words, from the section `[page]` of the settings."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from components.assets import WEB, inert, read, template_text
from components.reply import reply_html
from memory.modes import MODES
from settings import SettingsError
from settings.page import PROMPTS, Link, PageSettings, Starter

_TYPES = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
}
_MOST_LOGO, _MOST_PICTURE, _MOST_INTRO = 200_000, 60_000, 50_000
"""Most bytes of the files."""
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
_INTRO = (
    "<p>The panel shows every token, step and delay, and exactly what the model was given. "
    "Change the model or its memory at any time.</p>"
)
_EMOJI = re.compile(r"[^\w./\\]{1,8}")
_ACCENTS = (
    *("--gb-accent", "--gb-phase-streaming", "--gb-part-message", "--accent", "--button"),
    *("--button-primary-background-fill", "--checkbox-background-color-selected", "--checkbox-border-color-selected"),
)
"""The variables that have the accent colour."""
_SCHEMES = (
    ":root:root:root, #first-frame#first-frame",
    ".dark.dark.dark, .dark.dark.dark .gradio-container .contain.contain, #first-frame#first-frame.dark",
)
"""Selectors of the light and of the dark page that are more specific than Gradio's and those of our style sheets."""
_PARTS = {
    "conversations": "#sidebar, #show-conversations",
    "panel": "#agent-state, #embedded button",
    "options": "#options-button",
    "model": "#header > :is(#backend, #model)",
    "memory": "#memory-control",
    "share": "#share",
}
"""The selectors of the parts that can be hidden."""


class Brand:
    """The look and the words of a page."""

    def __init__(self, page: PageSettings, folder: Path) -> None:
        """Reads the files, which are in `folder`. Raises SettingsError for what cannot be used."""
        self.page = page
        self._prompts = PROMPTS if page.prompts is None else page.prompts
        if unknown := next((one.memory for one in self._prompts if one.memory and one.memory not in MODES), None):
            allowed = ", ".join(map(repr, MODES))
            raise SettingsError(f"page, prompts: memory: found {unknown!r}, allowed: {allowed}")
        self._image = _image(page.logo, folder, "logo", _MOST_LOGO)
        self._icon = _image(page.favicon, folder, "favicon", _MOST_LOGO) if page.favicon else self._image
        self._pictures = [_image(one.picture, folder, "prompts: picture", _MOST_PICTURE) for one in self._prompts]
        self._intro = _intro(page.intro, folder)

    def header(self) -> str:
        """Returns the HTML of the name in the header."""
        return self._named("brand.html")

    def frame(self) -> str:
        """Returns the HTML of the first frame, which has the heading of an empty conversation."""
        frame = self._named("frame.html").replace("{panel}", self.page.panel)
        return frame.replace("{heading}", template_text(self.page.tagline))

    def intro(self) -> str:
        """Returns the HTML of an empty conversation."""
        values = {
            "heading": template_text(self.page.tagline),
            "intro": self._intro,
            "prompts": "".join(map(_prompt, self._prompts, self._pictures)),
            "links": _links(self.page.links),
        }
        intro = read("intro.html")
        for name, value in values.items():
            intro = intro.replace(f"{{{name}}}", value, 1)
        return intro

    def style(self) -> str:
        """Returns the styles of the accent colour and of the hidden parts."""
        hidden = ", ".join(_PARTS[name] for name in self.page.hide)
        rules = [f"{hidden} {{ display: none !important; }}"] if hidden else []
        if accents := self.page.accents:
            for scheme, colour in zip(_SCHEMES, accents, strict=True):
                values = " ".join(f"{name}: {colour};" for name in _ACCENTS)
                hover = f"--button-primary-background-fill-hover: color-mix(in srgb, {colour} 85%, gray);"
                rules.append(f"{scheme} {{ {values} {hover} }}")
        return "\n".join(rules)

    def favicon(self, data: Path) -> Path:
        """Returns the file of the tab's icon; one that is made is in the folder `data`."""
        known = WEB / "favicon.svg"
        if self._icon:
            icon = f'{_SVG}<image href="{self._icon}" width="32" height="32"/></svg>'
        elif emoji := self.page.favicon or self.page.logo:
            text = html.escape(emoji)
            icon = f'{_SVG}<text x="16" y="25" font-size="26" text-anchor="middle">{text}</text></svg>'
        elif accents := self.page.accents:
            icon = known.read_text().replace("#0f766e", accents[0]).replace("#14b8a6", accents[1])
        else:
            return known
        data.mkdir(parents=True, exist_ok=True)
        made = data / "favicon.svg"
        made.write_text(icon, encoding="utf-8")
        return made

    def _named(self, template: str) -> str:
        logo = read("logo.html")
        if self._image:
            logo = f'<img src="{self._image}" width="26" height="26" alt="">'
        elif self.page.logo:
            logo = f'<span class="emoji" aria-hidden="true">{template_text(self.page.logo)}</span>'
        return read(template).replace("{logo}", logo).replace("{title}", template_text(self.page.title))


def _prompt(one: Starter, image: str) -> str:
    data = {"prompt": one.message, "backend": one.backend, "memory": one.memory}
    attributes = "".join(f' data-{name}="{template_text(value)}"' for name, value in data.items() if value)
    about = f"<span>{template_text(one.about)}</span>" if one.about else ""
    picture = f'<i class="picture" aria-hidden="true">{template_text(one.picture or "")}</i>' if one.picture else ""
    if image:
        picture = f'<img class="picture" src="{image}" alt="">'
    return f'<button type="button"{attributes}>{picture}<b>{template_text(one.title)}</b>{about}</button>'


def _links(links: Sequence[Link]) -> str:
    made = [
        f'<a href="{template_text(one.url)}" target="_blank" rel="noopener">{template_text(one.text)}</a>'
        for one in links
    ]
    return f"<p class='links'>{' · '.join(made)}</p>" if made else ""


def _image(image: str | None, folder: Path, setting: str, most: int) -> str:
    """The `data:` address of an image file; empty for an emoji and without a setting."""
    if image is None or _EMOJI.fullmatch(image):
        return ""
    kind = _TYPES.get(Path(image).suffix.lower())
    if kind is None:
        allowed = f"an emoji, or a file that ends with {', '.join(_TYPES)}"
        raise SettingsError(f"page, {setting}: found {image!r}, allowed: {allowed}")
    content = _read(folder / image, setting, most)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _intro(name: str | None, folder: Path) -> str:
    """The HTML of the text below the heading."""
    if name is None:
        return _INTRO
    try:
        text = _read(folder / name, "intro", _MOST_INTRO).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"page, intro: {folder / name} is not UTF-8 text") from None
    return f"<div class='prose'>{inert(reply_html(text))}</div>"


def _read(file: Path, name: str, most: int) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as e:
        raise SettingsError(f"page, {name}: {file} cannot be read ({e.strerror})") from None
    if len(content) > most:
        raise SettingsError(f"page, {name}: {file} has {len(content):,} bytes, allowed: at most {most:,}")
    return content
