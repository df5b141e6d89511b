"""Plain English: each public name has a docstring that is a statement, and some words and phrases are not used.

The words that are used instead stand in the glossary of docs/architecture.md.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("agent", "backends", "components", "documents", "hosting", "memory", "runs", "settings", "transports")
CODE = sorted([*ROOT.glob("*.py"), *(file for name in PACKAGES for file in (ROOT / name).rglob("*.py"))])
TEXTS = [*CODE, *sorted(ROOT.glob("web/*")), *sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
OPENINGS = re.compile(
    r"[`,.]*(?:about|above|after|as|at|before|behind|below|beside|between|by|during|for|from|in|into|like|of|on|onto|"
    r"outside|over|per|since|through|to|until|under|what|whatever|whether|which|whichever|who|whoever|whom|whose|with|"
    r"within|without)\b",
    re.IGNORECASE,
)
"""Words that begin a phrase, not a statement."""
BANNED = re.compile(
    r"\b(?:"
    # people
    r"whoever|who(?:m|se)ever|strangers?|askers?|who asks|who may|somebody|anybody|for nobody|for everybody|"
    r"of (?:ours|theirs|yours)|"
    # queues, runs and activity
    r"(?:stands?|waits?|wait|place) in line|in line (?:for|to|with)|gives? way|goes on|go on|gone on|"
    r"signs? of life|heard|told|hears|steps? back|takes? in|taken in|(?:has|have) gone|anew|"
    # riddles and colloquial phrases
    r"(?:that|what) is none|(?:can|cannot) be had|all the same|but for|now and then|lets? go of|let go|"
    r"holds? up|held up|takes? up|taken up|mended|oddly|of this place|nothing has these|nothing but|what there is|"
    r"any more|in vain|comes to|knows nothing"
    r")\b",
    re.IGNORECASE,
)
"""Words for which the field has another one, and phrases that must be read twice."""
BANNED_NAMES = frozenset({"asker", "heard", "kit", "patience", "said", "spoke", "told", "tuning"})
"""Words that are no part of a name in the code."""
GERUNDS = frozenset({"parsing", "streaming", "tracing"})
"""Modules whose names end in -ing and are nouns."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented(node: ast.AST, name: str = "") -> Iterator[tuple[str, Documented]]:
    """The module, its public classes and functions, and the public methods of these."""
    if isinstance(node, ast.Module):
        yield "module", node
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        decorators = " ".join(map(ast.unparse, node.decorator_list))
        if node.name.startswith("_") or re.search(r"overload|override|\.setter", decorators):
            return
        name = f"{name}.{node.name}".lstrip(".")
        yield name, node
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            yield from documented(child, name)


def first_sentence(node: Documented) -> str | None:
    """The first paragraph of a docstring, as one line; None without a docstring."""
    text = ast.get_docstring(node)
    return text.split("\n\n")[0].replace("\n", " ") if text is not None else None


def defined(tree: ast.AST) -> Iterator[str]:
    """The names that a module defines: classes, functions, parameters, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.arg(arg=name)
            ):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def words_of(name: str) -> set[str]:
    """The words of a name in snake case or camel case."""
    return set(re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower().split("_"))


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", CODE, ids=relative)
def test_public_names_have_a_docstring_that_is_a_statement(file: Path) -> None:
    wrong = []
    for name, node in documented(ast.parse(file.read_text())):
        line = first_sentence(node)
        if not line:
            wrong.append(f"{name}: no docstring")
        elif OPENINGS.match(line):
            wrong.append(f"{name}: {line}")
    assert wrong == []


@pytest.mark.parametrize("file", TEXTS, ids=relative)
def test_banned_words_are_not_used(file: Path) -> None:
    text = re.sub(r"\n\s*(?:#|//|\*)?\s*", " ", file.read_text())  # a phrase may be broken over two lines
    assert [text[max(0, found.start() - 30) : found.end() + 30] for found in BANNED.finditer(text)] == []


@pytest.mark.parametrize("file", CODE, ids=relative)
def test_banned_words_are_no_part_of_a_name(file: Path) -> None:
    assert {name for name in defined(ast.parse(file.read_text())) if words_of(name) & BANNED_NAMES} == set()


def test_modules_are_named_by_nouns() -> None:
    modules = [file for file in CODE if file.stem.endswith("ing") and file.stem not in GERUNDS]
    assert [relative(file) for file in modules] == []


def test_the_check_finds_what_it_looks_for() -> None:
    assert BANNED.search("Told of each run that has ended.") and not BANNED.search("Callbacks that run after each run.")
    module = ast.parse('class Room:\n    def width(self): "Of a room."\n    def height(self): ...')
    found = {name: first_sentence(node) for name, node in documented(module)}
    assert {name for name in defined(module) if "room" in words_of(name)} == {"Room"}
    assert found == {"module": None, "Room": None, "Room.width": "Of a room.", "Room.height": None}
