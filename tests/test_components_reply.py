"""Replies as HTML: agreement with CommonMark, safety, and growing replies that equal complete ones."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.markdown import parse_inline
from components.reply import GrowingReply, HtmlCache, reply_html

ALLOWED = {
    *(
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "li",
        "blockquote",
        "div",
        "pre",
        "code",
        "button",
        "hr",
        "br",
    ),
    *("table", "thead", "tbody", "tr", "th", "td", "a", "em", "strong", "s", "span", "figure", "details", "summary"),
}
TAG = re.compile(r"<(/?)([a-z0-9]+)((?: [a-z]+=(?:'[^'<>]*'|\"[^\"<>]*\")| open)*)>")
CLOSING = re.compile(r"(?:</[a-z0-9]+>)+$")


def bare(text: str) -> str:
    """Returns the HTML of a reply without directions, and without the extras of code blocks."""
    shown = reply_html(text).replace("<div class='code' dir='ltr'>", "").replace("</pre></div>", "</pre>")
    shown = re.sub(r"<button [^>]*></button>| dir='\w+'|<div class='wide'>", "", shown)
    return shown.replace("</table></div>", "</table>").replace("&#10;", "\n")


def shown_text(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup.replace("<br>", "\n")))


@pytest.mark.parametrize(
    ("source", "drawn"),
    [  # from the CommonMark Spec 0.31 and the GitHub Flavored Markdown Spec, without HTML and entities
        ("\tfoo\tbaz\t\tbim", "<pre><code>foo\tbaz\t\tbim</code></pre>"),
        ("- foo\n\n\tbar", "<ul><li><p>foo</p><p>bar</p></li></ul>"),
        (">\t\tfoo", "<blockquote><pre><code>  foo</code></pre></blockquote>"),
        ("- `one\n- two`", "<ul><li>`one</li><li>two`</li></ul>"),
        (r"\*not emphasized* \[not a link](/foo) \`x`", "<p>*not emphasized* [not a link](/foo) `x`</p>"),
        ("`` \\[\\` ``", "<p><code>\\[\\`</code></p>"),
        ("* * *", "<hr>"),
        ("Foo *bar\nbaz*\n====", "<h1>Foo <em>bar<br>baz</em></h1>"),
        ("####### foo", "<p>####### foo</p>"),
        ("# foo#", "<h1>foo#</h1>"),
        ("    chunk1\n\n    chunk2", "<pre><code>chunk1\n\nchunk2</code></pre>"),
        ("````\naaa\n```\n``````", "<pre><code>aaa\n```\n</code></pre>"),
        ("> ```\n> aaa\n\nbbb", "<blockquote><pre><code>aaa\n</code></pre></blockquote>\n\n<p>bbb</p>"),
        ("```\n\n  \n```", "<pre><code>\n  \n</code></pre>"),
        ("   ```\n   aaa\n    aaa\n  ```", "<pre><code>aaa\n aaa\n</code></pre>"),
        ("aaa\n    bbb", "<p>aaa<br>bbb</p>"),
        ("> # Foo\n> bar\nbaz", "<blockquote><h1>Foo</h1><p>bar<br>baz</p></blockquote>"),
        ("> - foo\n- bar", "<blockquote><ul><li>foo</li></ul></blockquote>\n\n<ul><li>bar</li></ul>"),
        (
            "1.  A\n\n        code\n\n    > quote",
            "<ol><li><p>A</p><pre><code>code</code></pre><blockquote><p>quote</p></blockquote></li></ol>",
        ),
        ("10) foo\n    - bar", "<ol start='10'><li>foo<ul><li>bar</li></ul></li></ol>"),
        ("- foo\n- bar\n+ baz", "<ul><li>foo</li><li>bar</li></ul>\n\n<ul><li>baz</li></ul>"),
        ("- a\n  - b\n\n    c\n- d", "<ul><li>a<ul><li><p>b</p><p>c</p></li></ul></li><li>d</li></ul>"),
        ("The number is\n14.  of windows", "<p>The number is<br>14.  of windows</p>"),
        ("`` foo ` bar ``", "<p><code>foo ` bar</code></p>"),
        ("`foo`` bar", "<p>`foo`` bar</p>"),
        ("a * foo bar*", "<p>a * foo bar*</p>"),
        ("foo_bar_baz", "<p>foo_bar_baz</p>"),
        ("пристаням_стремятся_", "<p>пристаням_стремятся_</p>"),
        ("*foo **bar** baz*", "<p><em>foo <strong>bar</strong> baz</em></p>"),
        ("[link](<foo(and(bar)>)", '<p><a href="foo(and(bar)">link</a></p>'),
        ("[a](<b)c>)", '<p><a href="b)c">a</a></p>'),
        ("[foo *bar [baz](/uri)*](/uri)", '<p>[foo <em>bar <a href="/uri">baz</a></em>](/uri)</p>'),
        ("foo  \nbar\\\nbaz", "<p>foo<br>bar<br>baz</p>"),
        (
            "| a | b |\n| :-: | --- |\n| `\\|` | c |",
            "<table><thead><tr><th class='center'>a</th><th>b</th></tr></thead>"
            "<tbody><tr><td class='center'><code>|</code></td><td>c</td></tr></tbody></table>",
        ),
        ("~~Hi~~ ~there~", "<p><s>Hi</s> ~there~</p>"),
    ],
)
def test_markdown_follows_the_specifications(source: str, drawn: str) -> None:
    assert bare(source).replace("\n</code>", "</code>") == drawn.replace("\n</code>", "</code>")


def test_links_are_links() -> None:
    assert '<a href="https://example.org">https://example.org</a>' in reply_html("<https://example.org>")
    assert '<a href="https://e.org/a_b_c">https://e.org/a_b_c</a>.' in reply_html("see https://e.org/a_b_c.")
    assert '<a href="http://www.e.org">www.e.org</a>' in reply_html("www.e.org")
    assert '<a href="mailto:a@e.org">a@e.org</a>' in reply_html("<a@e.org>")
    assert "<a" not in reply_html("README.md, app.py and example are no addresses; nor is //e.org")


@pytest.mark.parametrize(
    "source",
    [
        "[x](javascript:alert(1))",
        "[x]( JavaScript:alert(1))",
        "[x](java\tscript:alert(1))",
        "[x](<java&#10;script:alert(1)>)",
        "[x](&#x6A;avascript:alert(1))",
        "[x](\\javascript:alert(1))",
        "[x](vbscript:x)",
        "[x](data:text/html,x)",
        "[x](file:///etc/passwd)",
        "[x](blob:x)",
        "<javascript:alert(1)>",
        "[x][y]\n\n[y]: javascript:alert(1)",
        "[x]\n\n[x]: <JAVASCRIPT:alert(1)>",
        "![x](javascript:alert(1))",
        "[![x](https://e.org/i.png)](javascript:alert(1))",
        "javascript://e.org/%0aalert(1)",
    ],
)
def test_no_link_leads_to_a_script(source: str) -> None:
    for target in re.findall(r'href="([^"]*)"', reply_html(source)):
        assert re.match(r"https?://|(?![a-z]+:)", html.unescape(target), re.IGNORECASE), target


def test_images_are_links() -> None:
    assert bare("![the *sea*](https://e.org/i.png)") == '<p><a href="https://e.org/i.png">the sea</a></p>'
    assert bare("![](https://e.org/i.png)") == '<p><a href="https://e.org/i.png">https://e.org/i.png</a></p>'
    assert bare("[![b](https://e.org/i.png)](https://e.org)") == '<p><a href="https://e.org">b</a></p>'


@pytest.mark.parametrize(
    "source",
    [
        "<script>alert(1)</script>",
        "<div>\n\n*x*\n</div>",
        "&lt;b&gt; &amp;lt; &#60;b&#62; &nbsp;",
        "<!-- a --> <![CDATA[x]]> <?php ?> <!DOCTYPE html>",
        "List<String> and a<b>c",
        "%%%LATEX_BLOCK_0%%%",
        "<a href='javascript:x'>b</a>",
        "</textarea></title></style>",
    ],
)
def test_html_and_entities_are_text(source: str) -> None:
    drawn = reply_html(source)
    assert {name for _, name, _ in TAG.findall(drawn)} <= {"p", "em", "br"}
    assert shown_text(drawn).replace("\n", "") == source.replace("\n", "").replace("*x*", "x")


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("- a\n  ```html\n  <b>\n  ```\n  c", "<b>\n"),
        ("        ```\n        <b>\n        ```", "    ```\n    <b>\n    ```"),
        ("````\n```html\n<b>\n```\n````", "```html\n<b>\n```\n"),
        ("1. a\n\n   ~~~\n   List<String> &amp;\n   ~~~", "List<String> &amp;\n"),
        ("> ```\n> <i>\n> ```", "<i>\n"),
        ("```\n<b> still growing", "<b> still growing"),
        ("`List<String> &amp; [x](data:)`", "List<String> &amp; [x](data:)"),
        ("- ```html\n\n<b>prose</b>", ""),
    ],
)
def test_code_is_unchanged(source: str, code: str) -> None:
    drawn = reply_html(source)
    (found,) = re.findall(r"<code[^>]*>(.*?)</code>", drawn, re.DOTALL)
    assert html.unescape(found).removesuffix("\n") == code.removesuffix("\n")
    assert "\u2060" not in drawn and "<b>" not in drawn and "<i>" not in drawn


def test_link_definition_works_and_is_shown() -> None:
    drawn = bare('see [docs][1] and [1]\n\n[1]: https://e.org "T"\n[2]: /x')
    assert drawn.count('<a href="https://e.org" title="T">') == 2
    assert shown_text(drawn).endswith('[1]: https://e.org "T"\n[2]: /x')


def test_deep_nesting_loses_no_text() -> None:
    for mark in ("> ", "- ", "> - ", "1. "):
        assert "deepest" in shown_text(reply_html(mark * 300 + "deepest"))
    assert "x" in reply_html("[" * 3000 + "x" + "]" * 3000)


@pytest.mark.parametrize(
    ("source", "directions"),
    [
        ("שלום world", ["auto"]),
        ("- שלום", ["rtl"]),
        ("- hello\n- שלום\n  > مرحبا", ["rtl", "auto"]),
        ("> مرحبا `x`", ["rtl", "auto", "ltr"]),
        ("| א | b |\n|---|---|", ["rtl", "auto", "auto"]),
        ("`code` שלום", ["auto", "ltr"]),
    ],
)
def test_direction_follows_the_text(source: str, directions: list[str]) -> None:
    assert re.findall(r"dir='(\w+)'", reply_html(source)) == directions


PIECES = [
    *("- ", "1. ", "2) ", "> ", "# ", "```", "```html\n", "~~~", "    ", "\t", "\n", "\n", "\n\n", "a", "foo", " "),
    *("**", "*", "_", "`", "[", "]", "(", ")", "!", "<", "</", "<b>", "&amp;", "|", "--|--", "---", "==="),
    *("\\[", "\\]", "$$", "$", "\\(", "\\)", "[foo]: /u", "[foo]", "https://a.b/c", "~~", "~", "\\", "א", "x_1"),
    *("=", "+ ", ":", "\r\n", "\r", "- [x] ", "%%%", "'", '"', "\0", "```mermaid\n"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text()


@given(TEXTS, st.lists(st.integers(1, 9), min_size=1))
def test_growing_reply_equals_the_complete_one(text: str, steps: list[int]) -> None:
    growing, at, turn = GrowingReply(), 0, 0
    drawn = ""
    while at < len(text):
        at, turn = at + steps[turn % len(steps)], turn + 1
        drawn = growing.html(text[:at])
        assert "\n\n\n" not in drawn
    assert drawn == CLOSING.sub("", reply_html(text))


def test_late_definition_makes_links_of_earlier_text() -> None:
    growing, text = GrowingReply(), "see [docs]\n\nmore\n\n[docs]: https://e.org/docs\n\nlast [docs]"
    drawn = [growing.html(text[:end]) for end in range(1, len(text) + 1)]
    assert drawn[-1] == CLOSING.sub("", reply_html(text))
    assert sum("https://e.org/docs" in one for one in drawn) > 10


def test_growing_reply_counts_the_characters_to_send() -> None:
    growing = GrowingReply()
    sizes = [
        (growing.html(text), growing.sent)[1] for text in ("some", "some more", "some more **w", "some more **w**")
    ]
    assert sizes == [len("<p dir='auto'>some"), len(" more"), len(" **w"), len("<p dir='auto'>some more <strong>w")]


def test_text_that_changes_before_its_end_is_rendered_again() -> None:
    growing = GrowingReply()
    growing.html("thought\n\nmore\n\nand")
    assert growing.html("other") == "<p dir='auto'>other"


@given(TEXTS)
def test_only_known_elements_appear(text: str) -> None:
    drawn = reply_html(text)
    rest = TAG.sub("", drawn)
    assert "<" not in rest and ">" not in rest
    for _, name, attributes in TAG.findall(drawn):
        assert name in ALLOWED
        assert not re.search(r"\b(on\w+|style|src|id)=", re.sub(r"'[^']*'|\"[^\"]*\"", "", attributes))
    assert not re.search(r"[\u2060\ue000-\uf8ff]", drawn) or re.search(r"[\u2060\ue000-\uf8ff]", text)
    stack: list[str] = []
    for closing, name, _ in TAG.findall(drawn):
        if closing:
            assert stack.pop() == name
        elif name not in ("br", "hr"):
            stack.append(name)
    assert stack == []


def test_cost_of_a_long_reply_is_that_of_its_last_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost is the number of parsed characters, with one rendering per hundred characters."""
    parsed = 0

    def count(text: str, environment: object) -> object:
        nonlocal parsed
        parsed += len(text)
        return real(text, environment)  # type: ignore[arg-type]

    import components.reply as reply

    real = reply.parse_blocks
    monkeypatch.setattr(reply, "parse_blocks", count)
    text = "Some **words** of a paragraph, and `code`.\n\n" * 1100
    growing = GrowingReply()
    for end in range(0, len(text), 100):
        growing.html(text[:end])
    assert parsed < 4 * len(text)


def test_bare_links_without_a_scheme_start_at_a_word() -> None:
    drawn = reply_html("(www.a.org/x), see:www.b.org;www.c.org/?u=www.x.org \u3002www.d.org\u3002www.e.org a.www.f.org")
    targets = re.findall(r'href="([^"]*)"', drawn)
    assert targets[:2] == ["http://www.a.org/x", "http://www.b.org"]
    assert targets[2:] == ["http://www.c.org/?u=www.x.org", "http://www.d.org", "http://www.e.org"]


@pytest.mark.parametrize("piece", ["www.", ",www.a.b/", "a www.", "(www.", "-www.a.b/", "\u3002www.a.b/c"])
def test_no_character_is_read_for_many_links(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost is the number of characters that are validated; each position is validated at most three times."""
    from components.markdown import _Links

    given, real = [0], _Links._validate_http

    def count(self: _Links, text: str, at: int) -> int:
        given[0] += len(text) - at
        return int(real(self, text, at))

    monkeypatch.setattr(_Links, "_validate_http", count)
    text = (piece * 8000)[:8000]
    parse_inline(text, {})
    assert given[0] < 6 * len(text)


@pytest.mark.parametrize("defined", [{}, {"A": {"href": "/u", "title": ""}}])
@pytest.mark.parametrize("piece", ["[a][", "![a][", "[", "![", "[b][", "[a] [", "[*a", "![[", "[a](b[", "[`a`"])
def test_steps_for_brackets_are_bounded(
    piece: str, defined: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost is the number of tokens that the parser skips in search of the end of a bracket."""
    from markdown_it.rules_inline import StateInline

    from components.markdown import _PARSER

    skipped, real = [0], _PARSER.inline.skipToken

    def count(state: StateInline) -> None:
        skipped[0] += 1
        real(state)

    monkeypatch.setattr(_PARSER.inline, "skipToken", count)
    text = (piece * 8000)[:8000]
    parse_inline(text, {"references": defined} if defined else {})
    assert skipped[0] < 100_000


def test_many_brackets_of_normal_text_are_links() -> None:
    text = "As [[1](https://e.org/1)] and [**b** `c`](/u) say, of [0, 1) and x[0]. " * 60
    assert reply_html(text).count("<a ") == 120


def test_failed_attempts_at_links_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from markdown_it.rules_inline import linkify

    tried = [0]

    class Counted:
        """The pattern of a scheme, which reads all text before it."""

        def search(self, text: str) -> object:
            tried[0] += 1
            return real.search(text)

    module = __import__("sys").modules[linkify.__module__]
    real = module.SCHEME_RE
    monkeypatch.setattr(module, "SCHEME_RE", Counted())
    parse_inline("x://" * 2000, {})
    assert 0 < tried[0] <= 200


LONG = ["**a** " * 20_000, "www." * 25_000, "[a][" * 25_000, "\u05d0 <b>&amp; %%%\n\n# h\r\n" * 5000]


@pytest.mark.parametrize("text", LONG)
def test_long_text_is_shown_as_written_with_a_note(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr("components.reply.parse_blocks", refuse)
    note, body = reply_html(text).split("\n\n")
    assert "too long to be formatted" in note
    assert html.unescape(body.removeprefix("<p dir='auto'>").removesuffix("</p>")) == text.replace("\r\n", "\n")


def test_text_of_normal_length_is_formatted() -> None:
    text = "**a** " * 8333
    assert len(text) == 49_998 and reply_html(text).count("<strong>") == 8333
    assert "too long" not in reply_html(text + "bc") and "too long" in reply_html(text + "bcd")


@pytest.mark.parametrize("piece", ["**a** b\n\n", "a\r\n", "- [a] www.\n"])
def test_growing_reply_that_becomes_long_equals_the_complete_one(piece: str) -> None:
    growing, text = GrowingReply(), (piece * 52_000)[:52_000]
    for end in (100, 49_999, 50_000, 50_001, 50_002, 52_000):
        assert growing.html(text[:end]) == CLOSING.sub("", reply_html(text[:end]))
    assert growing.sent < 20_000, "it grows at its end"
    assert growing.html("**a**") == "<p dir='auto'><strong>a"


def test_checkbox_is_only_at_the_start_of_an_item() -> None:
    linked = "- [x] see [ ] later\n\n[x]: http://a"
    drawn = reply_html(linked)
    assert '<li><a href="http://a">x</a> see [ ] later</li>' in drawn
    assert reply_html("- [x] see [ ] later") == "<ul><li class='task done'>see [ ] later</li></ul>"
    assert reply_html("- [ ] [x] b") == "<ul><li class='task'>[x] b</li></ul>"
    growing = GrowingReply()
    for end in range(1, len(linked) + 1):
        assert growing.html(linked[:end]) == CLOSING.sub("", reply_html(linked[:end]))


def test_cache_is_bounded_in_characters() -> None:
    kept = HtmlCache(1000)
    for name in "abcdefghijk":
        kept.put(name * 50, name * 50)
        assert kept.get("a" * 50), "it was used last"
        assert kept.characters <= 1000
    assert kept.get("b" * 50) is None and kept.get("k" * 50) == "k" * 50
    kept.put("long", "x" * 2000)
    assert kept.characters == 0 and kept.get("long") is None


def test_memory_of_cached_replies_is_bounded() -> None:
    from components.reply import _CACHE

    for number in range(20):
        reply_html(f"{number} \U0001f600" + '"' * 49_000)
        assert 0 < _CACHE.characters <= 2_000_000


def test_cached_reply_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = reply_html("kept **once**")
    monkeypatch.delattr("components.reply.parse_blocks")
    assert reply_html("kept **once**") == first
