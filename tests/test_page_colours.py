"""The page's colours in both schemes: contrast by WCAG 2, and one colour for each phase."""

import re
from itertools import combinations
from pathlib import Path
from typing import get_args

import pytest

from agent.context_event import PARTS
from runs.events import Phase

CSS_FOLDER = Path(__file__).parents[1] / "web"
CSS = (CSS_FOLDER / "colours.css").read_text()
SURFACES = "sunk", "side", "raised"
PHASES = [name for name in get_args(Phase) if name != "complete"]


def colours(scheme: str) -> dict[str, str]:
    """The variables of a scheme by name; the dark one changes those of the light one."""
    blocks = {"light": CSS[: CSS.index("\n.dark {")], "dark": CSS[CSS.index("\n.dark {") :]}
    return dict(re.findall(r"--gb-([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_and_edges_stand_out_and_texts_can_be_read(scheme: str) -> None:
    found = colours(scheme)
    drawn = [*(f"phase-{phase}" for phase in PHASES), *(f"part-{part}" for part in PARTS), "edge", "accent"]
    for surface in SURFACES:
        weak = {name: contrast(found[name], found[surface]) for name in drawn}
        assert {name: ratio for name, ratio in weak.items() if ratio < 3} == {}, surface
        texts = {name: contrast(found[name], found[surface]) for name in ("quiet", "accent", "bad")}
        assert {name: ratio for name, ratio in texts.items() if ratio < 4.5} == {}, surface


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_two_phases_share_a_colour(scheme: str) -> None:
    found = colours(scheme)
    pairs = combinations(PHASES, 2)
    assert [pair for pair in pairs if len({found[f"phase-{name}"] for name in pair}) == 1] == []


@pytest.mark.parametrize("file", sorted(CSS_FOLDER.glob("*.css")), ids=lambda file: file.name)
def test_no_edge_is_a_shorthand_that_is_changed_in_the_same_rule(file: Path) -> None:
    """Gradio writes the rules again, and such a shorthand with a variable is lost on the way."""
    changed = re.compile(r"border: [^;}]*var\([^;}]*;[^}]*border-(?!radius)[a-z-]+:")
    assert changed.search("a { border: 1px solid var(--b); border-left: 3px solid red; }"), "it would be found"
    assert [found.group() for found in changed.finditer(file.read_text())] == []
