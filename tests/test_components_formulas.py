"""Formulas in Markdown, as opposed to money, variables and code."""

import html
import re

import pytest

from components.reply import GrowingReply, reply_html

FORMULA = re.compile(r"<(?:span|div) class='(math[^']*)' dir='ltr'>(.*?)</(?:span|div)>")


def formulas(text: str) -> list[str]:
    return [html.unescape(source) for _, source in FORMULA.findall(reply_html(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \(a_b^2 * c_d\) is", [r"\(a_b^2 * c_d\)"]),
        (r"\[ x \\ y \\[2pt] z \]", [r"\[ x \\ y \\[2pt] z \]"]),
        (r"let $$x < y & z$$ be", ["$$x < y & z$$"]),
        ("\\[\na\n+ b\n- c\n= d\n\\]", ["\\[\na\n+ b\n- c\n= d\n\\]"]),
        (
            "text\n$$\n\\begin{a}\n1 & 2 \\\\\n# 3\n\\end{a}\n$$\ntext",
            ["$$\n\\begin{a}\n1 & 2 \\\\\n# 3\n\\end{a}\n$$"],
        ),
        ("- item \\(x\\)\n  \\[\n  y\n  \\]", [r"\(x\)", "\\[\ny\n\\]"]),
        ("> $$x$$", ["$$x$$"]),
        ("| $a_1$ | \\(b\\) |\n|---|---|", ["$a_1$", r"\(b\)"]),
        ("**\\(x\\)** and [\\(y\\)](https://e.org)", [r"\(x\)", r"\(y\)"]),
        ("$x$, $x_1$, $f(x) = 2$ and $\\alpha$", ["$x$", "$x_1$", "$f(x) = 2$", "$\\alpha$"]),
        ("the $n$th, ($a+b$), $[0,1)$ and $42$", ["$n$", "$a+b$", "$[0,1)$", "$42$"]),
        ("$\\text{two words} + 1$ and $5 \\times 3$", ["$\\text{two words} + 1$", "$5 \\times 3$"]),
        ("$ABC$ is a triangle", ["$ABC$"]),
        ("\\[x\\] where\nmore", [r"\[x\]"]),
        ("设$x=1$，则$y$的值, для $n$-го, $\\alpha$는", ["$x=1$", "$y$", "$n$", "$\\alpha$"]),
        ("a bet of $\\$0.60$", ["$\\$0.60$"]),
    ],
)
def test_formulas_are_found_with_their_source(text: str, expected: list[str]) -> None:
    assert formulas(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $7",
        "from $5 to $x, or $5-$7, $1,000/$2,000",
        "US$5 and CA$7, 5$ and 7$",
        "I have $20 (US$) and $1.50, or $3 (was $4).",
        "**$5** and **$6**, *$7* or *$8*",
        "$HOME/bin:$PATH, $a;$b and ${x}$y",
        "the $ sign, the $ key, and $ 5 $",
        "$5 is more than 4$ here",
        "\\$x$ and \\\\(y\\\\)",
        "`$x$` and ``\\(y\\)``",
        "```\n$$x$$\n\\[y\\]\n```",
        "    \\[indented code\\]",
        "\\( open and $$ open and \\[ open",
        "\\[\na\n\nb\n\\]",
        "$$$ much money $$$",
        "\\(\\) $$ $$",
        "/^a$/ or /b$/, $('#a').text($x)",
        "to pay **$1.50** for it. For every one she makes $1.50.",
        "R$ 12,29/metro, seguida (R$ 15,83/metro) e (R$ 18,60/metro)",
        "$10K flat, Phase 2 at $8K; $123 - $234; $155 in all, $34",
        "月成本 **$148+ → $19**（省 **87%**，年省 ~$1,550）；可再降到 $15.4/月",
        "从$5到$x元，价格$5（约合36元），很便宜$",
        "escaped \\$5 and \\$7, or \\$x\\$",
    ],
)
def test_text_that_is_no_formula_is_unchanged(text: str) -> None:
    assert formulas(text) == []


def test_dollars_of_money_are_shown() -> None:
    assert "It costs $5 and $7" in reply_html("It costs $5 and $7")


def test_formula_is_typeset_once_it_is_closed() -> None:
    growing = GrowingReply()
    for open_one in ("so \\(", "so \\(a_b", "so \\(a_b\\"):
        assert "class='math'" not in growing.html(open_one)
    assert "class='math' dir='ltr'>\\(a_b\\)" in growing.html("so \\(a_b\\)")
    assert "math" not in growing.html("so\n\n\\[\n- x\n")
    assert "class='math display'" in growing.html("so\n\n\\[\n- x\n\\]")


def test_lone_backslashes_and_underscores_outside_of_formulas_are_markdown() -> None:
    assert "<em>a</em>" in reply_html("_a_ \\* b")
