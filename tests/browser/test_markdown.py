"""Replies and messages as text on the page: what is shown, selected and copied is what was written."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from playwright.sync_api import expect
from pypdf import PdfReader

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.providers import OpenAIServer, Reply
from tests.test_components_reply import ALLOWED, PIECES

ENTRY = '[[backends]]\nname = "Writer"\nkind = "openai"\nmodel = "test-model"\nbase_url = "{base_url}"\n'
MESSAGES = """() => [...document.querySelectorAll('#chat [data-testid=bot]')].map((box) => {
  getSelection().selectAllChildren(box);
  return {
    text: getSelection().toString(),
    code: [...box.querySelectorAll('.code pre')].map((pre) => pre.textContent),
    names: [...new Set([...box.querySelectorAll('.md *')].map((node) => node.localName))],
    attributes: [...new Set([...box.querySelectorAll('.md *')].flatMap((node) => node.getAttributeNames()))],
    links: [...box.querySelectorAll('a')].map((a) => a.href),
  };
})"""
COPY = """(selector) => {
  const nodes = document.querySelectorAll(selector);
  getSelection().setBaseAndExtent(nodes[0], 0, nodes[nodes.length - 1], nodes[nodes.length - 1].childNodes.length);
  document.execCommand('copy');
  return navigator.clipboard.readText();
}"""

ALIGNED = """(node) => {
  const range = document.createRange(), box = node.getBoundingClientRect();
  range.selectNodeContents(node);
  const text = range.getBoundingClientRect();
  return box.right - text.right < text.left - box.left ? 'right' : 'left';
}"""
# Selects words of a growing reply, and ends when the page has seen it. A browser reports a selection in a later task:
# if the reply grows before that, the words are selected again.
SELECT = """async ([paragraph, words]) => {
  const place = (nodes, offset) => {
    for (const one of nodes) {
      if (offset <= one.data.length) return [one, offset];
      offset -= one.data.length;
    }
  };
  while (getSelection().toString() !== words) {
    const node = document.querySelectorAll('#live-reply p')[paragraph], nodes = [];
    const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT), at = node.textContent.indexOf(words);
    while (walker.nextNode()) nodes.push(walker.currentNode);
    const seen = new Promise((resolve) => document.addEventListener('selectionchange', resolve, { once: true }));
    getSelection().setBaseAndExtent(...place(nodes, at), ...place(nodes, at + words.length));
    await seen;
  }
}"""


@dataclass
class Desk:
    """The app with a model that writes what a test says."""

    app: RunningApp
    openai: OpenAIServer
    chat: Chat

    def write(self, *pieces: str, pause: float = 0) -> None:
        self.openai.answers = [Reply(text=pieces, pause=pause)]
        self.chat.send("Write")
        if not pause:
            self.chat.wait_end()

    def draw(self, *replies: str) -> None:
        """Opens a conversation with these replies."""
        messages = [
            m for text in replies for m in ({"role": "user", "content": "x"}, {"role": "assistant", "content": text})
        ]
        self.chat.show(messages)
        expect(self.chat.page.locator("#chat [data-testid=bot]")).to_have_count(len(replies))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningApp, OpenAIServer]]:
    with OpenAIServer() as openai:
        with RunningApp(tmp_path_factory.mktemp("markdown"), ENTRY.format(base_url=openai.base_url)) as app:
            yield app, openai


@pytest.fixture
def desk(started: tuple[RunningApp, OpenAIServer], open_chat: Callable[..., Chat]) -> Iterator[Desk]:
    chat = open_chat(started[0].url)
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield Desk(*started, chat)
    assert chat.errors == []


WORDS = st.sampled_from(
    [
        *("word", "déjà", "слово", "λόγος", "שלום", "مرحبا", "漢字", "ภาษา", "हिन्दी", "한국어", "😀", "e\u0301", "“q”"),
        *("<b>", "</div>", "<script>alert(1)</script>", "List<String>", "&amp;", "&lt;i&gt;", "<!--", "1<2&3"),
        *("$5", "$7,50", "~2000", "2 * 3", "a_b", "snake_case_name", "%%%LATEX_BLOCK_0%%%", "{{value}}", "C#", "f(x)"),
        *("#1", "@x", "--", "..."),
    ]
)
Written = tuple[str, str]
"""Markdown, and the text that it shows."""


def wrapped(mark: str) -> Callable[[str], Written]:
    return lambda word: (f"{mark}{word}{mark}", word)


PLAIN = st.sampled_from(["word", "слово", "שלום", "مرحبا", "漢字"])
CODED = st.lists(WORDS | st.sampled_from(["**b**", "[x](y)", "\\(", "$x$", "~~s~~"]), min_size=1, max_size=3).map(
    " ".join
)
INLINE = st.one_of(
    WORDS.map(lambda word: (word, word)),
    WORDS.map(lambda word: (word, word)),
    PLAIN.map(wrapped("**")),
    PLAIN.map(wrapped("*")),
    PLAIN.map(wrapped("~~")),
    CODED.map(lambda code: (f"``{code}``", code)),
    PLAIN.map(lambda word: (f"[{word}](https://example.org/a_b)", word)),
    st.just(("<https://example.org/x>", "https://example.org/x")),
    PLAIN.map(lambda word: (f"![{word}](https://example.org/i.png)", word)),
    st.just((r"\(a_b < c\)", "")),
)


def line(parts: list[Written]) -> Written:
    """A line whose first word is no marker of a block."""
    return "So " + " ".join(md for md, _ in parts), "So " + " ".join(text for _, text in parts)


LINE = st.lists(INLINE, min_size=1, max_size=6).map(line)
CODE = st.lists(
    st.sampled_from(["<b>x</b>", "a = 1", "  if x:", "&amp; $x$", "\\[ y", "# no", "- no", "", "שלום"]),
    min_size=1,
    max_size=5,
)


def fence(lines: list[str]) -> Written:
    code = "\n".join(["first", *lines, "last"])
    return f"````html\n{code}\n````", code


def table(cells: list[Written]) -> Written:
    assume(not any("|" in md for md, _ in cells))
    head = "| " + " | ".join(md for md, _ in cells) + " |"
    text = " ".join(text for _, text in cells)
    return f"{head}\n{'|---' * len(cells)}|\n{head}", f"{text} {text}"


LEAF = st.one_of(
    LINE,
    LINE.map(lambda one: (f"## {one[0]}", one[1])),
    CODE.map(fence),
    st.lists(LINE, min_size=2, max_size=8).map(table),
    st.just(("***", "")),
)


def joined(blocks: list[Written]) -> Written:
    return "\n\n".join(md for md, _ in blocks), "\n".join(text for _, text in blocks)


def items(marker: str) -> Callable[[list[Written]], Written]:
    def of(blocks: list[Written]) -> Written:
        indented = [marker + md.replace("\n", "\n" + " " * len(marker)) for md, _ in blocks]
        return "\n".join(indented), "\n".join(text for _, text in blocks)

    return of


def quote(blocks: list[Written]) -> Written:
    md, text = joined(blocks)
    return "> " + md.replace("\n", "\n> "), text


def nested(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
    several = st.lists(inner, min_size=1, max_size=3)
    return several.map(items("- ")) | several.map(items("1. ")) | several.map(quote)


DOCUMENT = st.lists(st.recursive(LEAF, nested, max_leaves=5), min_size=1, max_size=5).map(joined)
PER_PAGE = 14
IN_CHROMIUM = settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


def harmless(seen: dict[str, list[str]], source: str) -> None:
    """No element appears that the escape rules forbid, and nothing invisible."""
    assert set(seen["names"]) <= ALLOWED, source
    assert not set(re.findall(r"[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ue000-\uf8ff]", seen["text"])) - set(
        source
    )
    assert not [name for name in seen["attributes"] if name.startswith("on") or name in ("src", "srcset", "action")]
    assert all(re.match(r"https?://|mailto:", link) for link in seen["links"]), (seen["links"], source)


@IN_CHROMIUM
@given(documents=st.lists(DOCUMENT, min_size=PER_PAGE, max_size=PER_PAGE))
def test_selected_text_is_what_the_model_wrote(desk: Desk, documents: list[Written]) -> None:
    desk.draw(*(md for md, _ in documents))
    page = desk.chat.page
    page.wait_for_function("![...document.querySelectorAll('#chat .math')].some((one) => !one.querySelector('.katex'))")
    page.evaluate("for (const one of document.querySelectorAll('#chat .math')) one.remove()")
    for (md, text), seen in zip(documents, page.evaluate(MESSAGES), strict=True):
        assert seen["text"].split() == text.split(), md
        harmless(seen, md)
        fences = re.findall(r"^first\n.*?^last$", text, re.DOTALL | re.MULTILINE)
        assert seen["code"] == [f"{code}\n" for code in fences], md


@IN_CHROMIUM
@given(
    texts=st.lists(
        st.lists(
            st.sampled_from([p for p in PIECES if not re.search(r"[`~:\0]|x\]|/u", p)] + ["`", "~~", "слово"]),
            min_size=1,
        )
        .map("".join)
        .filter(lambda text: re.search(r"[^\W\d_]", text) and "```" not in text and "~~~" not in text),
        min_size=PER_PAGE,
        max_size=PER_PAGE,
    )
)
def test_no_letter_is_lost_whatever_the_markup(desk: Desk, texts: list[str]) -> None:
    texts = [re.sub(r"\\[()\[\]]|\$", "", text) or "x" for text in texts]
    desk.draw(*texts)
    for text, seen in zip(texts, desk.chat.page.evaluate(MESSAGES), strict=True):
        assert re.findall(r"[^\W\d_]", seen["text"]) == re.findall(r"[^\W\d_]", text), text
        harmless(seen, text)


def test_formulas_are_typeset_and_copied_as_their_source(desk: Desk) -> None:
    source = "So \\(a_b < c\\) and $x^2$:\n\n\\[\n\\frac{1}{2}\n\\]\n\nnot $5 and $7, broken \\(\\frac{1\\) end"
    desk.write(source)
    page = desk.chat.page
    expect(page.locator("#chat .katex")).to_have_count(3)
    expect(page.locator("#chat .katex-display")).to_have_count(1)
    expect(page.locator("#chat .broken")).to_have_text("\\(\\frac{1\\)")
    assert page.evaluate("getComputedStyle(document.querySelector('#chat .katex')).fontFamily").startswith("KaTeX")
    assert page.evaluate(
        "document.fonts.ready.then((all) => [...all].some((f) => f.family.includes('KaTeX') && f.status === 'loaded'))"
    )
    copied = page.evaluate(COPY, "#chat [data-testid=bot] p, #chat [data-testid=bot] div.math")
    assert re.sub(r"\s+", " ", copied).strip() == re.sub(r"\s+", " ", source)


def test_formulas_are_typeset_while_the_reply_streams(desk: Desk) -> None:
    desk.write("So \\(a", "_b\\)", *[" word"] * 40, pause=0.1)
    expect(desk.chat.page.locator("#live-reply .katex")).to_have_count(1, timeout=4000)
    desk.chat.stop()


def test_a_diagram_is_drawn_and_its_source_can_be_seen_and_copied(desk: Desk) -> None:
    source = "```mermaid\ngraph LR\n  A[Start] --> B\n```"
    desk.write(f"Look:\n\n{source}\n\nand\n\n```mermaid\ngraph LR\n  A[ --> {{{{\n```\n\nend")
    page = desk.chat.page
    figure, broken = page.locator("#chat figure.diagram").all()
    expect(figure.locator("svg")).to_contain_text("Start")
    figure.locator("summary").click()
    expect(figure.locator("pre")).to_have_text("graph LR\n  A[Start] --> B\n")
    expect(broken.locator(".wrong")).to_contain_text("Parse error on line 2")
    expect(broken.locator("pre")).to_be_visible()
    assert "A[ --> {{" in broken.inner_text() and broken.locator("svg").count() == 0
    assert source in page.evaluate(COPY, "#chat [data-testid=bot] p, #chat figure")
    figure.locator(".copy-code").click()
    assert page.evaluate("navigator.clipboard.readText()") == "graph LR\n  A[Start] --> B\n"


def test_code_has_colours_and_is_copied_exactly(desk: Desk) -> None:
    code = "\n  def f():\n\treturn '<b>'  \n\n"
    desk.write(f"So:\n\n```python\n{code}```\n")
    page = desk.chat.page
    expect(page.locator("#chat .token.keyword").first).to_have_text("def")
    page.locator("#chat .copy-code").click()
    assert page.evaluate("navigator.clipboard.readText()") == code


def test_a_message_is_shown_edited_and_copied_as_typed(desk: Desk) -> None:
    typed = "__init__ 2*3*4 ~x~\n\n  <b>two</b>   &amp; `c`\n# no heading\n- no list \\(x\\) %%%LATEX_BLOCK_0%%%"
    page = desk.chat.page
    desk.openai.answers = [Reply(text=("**yes** & <no>",))]
    desk.chat.send(typed)
    desk.chat.wait_end()
    said = page.locator("#chat .said")
    assert said.text_content() == typed and said.inner_text() == typed
    assert said.locator("*").count() == 0
    page.hover("#chat [data-testid=user]")
    page.locator("#chat").get_by_label("Copy message").first.click()
    assert page.evaluate("navigator.clipboard.readText()") == typed
    page.locator("#chat").get_by_label("Copy message").last.click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()) === '**yes** & <no>'")
    page.get_by_label("Edit").first.click()
    assert page.input_value("#chat textarea") == typed
    page.get_by_label("Submit").click()
    page.wait_for_selector("#chat .said")
    desk.chat.wait_end()
    assert said.text_content() == typed


def test_a_wide_table_scrolls_and_breaks_no_word(desk: Desk) -> None:
    cells = [f"internationalization{i}" for i in range(8)]
    desk.chat.page.set_viewport_size({"width": 390, "height": 800})
    desk.write("| " + " | ".join(cells) + " |\n" + "|---" * 8 + "|\n| " + " | ".join(cells) + " |\n")
    box = desk.chat.page.locator("#chat .wide")
    assert box.evaluate("(box) => box.scrollWidth > 2 * box.clientWidth && box.clientWidth < 390")
    assert all(cell.bounding_box()["height"] < 50 for cell in box.locator("td").all())  # type: ignore[index]
    assert desk.chat.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_each_paragraph_has_the_direction_of_its_text(desk: Desk) -> None:
    lists = "1. אחת\n2. שתים\n\n> مرحبا\n\n## مرحبا\n\n| אחת | two |\n|---|---|\n| א | b |\n"
    desk.write(f"Hello world\n\nאמת אחת `code` (1)\n\n{lists}")
    page = desk.chat.page
    bot = page.locator("#chat [data-testid=bot]")
    assert [p.evaluate(ALIGNED) for p in bot.locator("p").all()] == ["left", "right", "right"]
    assert bot.locator("h2").evaluate(ALIGNED) == "right"
    assert bot.locator("li").first.evaluate("(node) => getComputedStyle(node).direction") == "rtl"
    assert bot.locator("blockquote").evaluate("(node) => getComputedStyle(node).borderRightWidth") == "3px"
    assert bot.locator("table").evaluate("(node) => getComputedStyle(node).direction") == "rtl"
    assert bot.locator("code").evaluate("(node) => getComputedStyle(node).direction") == "ltr"
    page.fill("#prompt textarea", "مرحبا\nhello")
    assert page.evaluate("getComputedStyle(document.querySelector('#prompt textarea')).unicodeBidi") == "plaintext"


def test_a_selection_stays_while_the_reply_grows_and_after_its_end(desk: Desk) -> None:
    page = desk.chat.page
    pieces = [
        "The first **bold** paragraph ",
        "of the reply.\n\n",
        "The second one ",
        *(f"grows {i} " for i in range(25)),
    ]
    desk.write(*pieces, pause=0.12)
    page.locator("#live-reply p").nth(1).wait_for()
    for paragraph, word in ((1, "second one"), (0, "bold paragraph")):
        page.evaluate(SELECT, [paragraph, word])
        for _ in range(4):
            page.wait_for_timeout(150)
            assert page.evaluate("getSelection().toString()") == word
    desk.chat.wait_end()
    page.wait_for_timeout(500)
    assert page.evaluate("getSelection().toString()") == "bold paragraph"
    assert page.evaluate("Boolean(getSelection().anchorNode.parentElement.closest('#chat'))")
    page.click("#prompt textarea")
    assert page.evaluate("getSelection().toString()") == ""


def test_the_live_reply_and_the_ended_one_are_drawn_alike(desk: Desk) -> None:
    text = "# T\n\n- a **b**\n  ```\n  <b>\n  ```\n\n> q\n\n| a |\n|---|\n| `b` |\n\nend of \\(x\\)"
    desk.write(*re.findall(r".{1,3}", text, re.DOTALL), *[" ."] * 20, pause=0.05)
    page = desk.chat.page
    page.wait_for_function("document.querySelector('#live-reply .katex')")
    before = page.evaluate("document.querySelector('#live-reply .md').getBoundingClientRect().height")
    drawn = page.locator("#live-reply .md > *:not(:last-child)").evaluate_all(
        "(all) => all.map((one) => one.outerHTML)"
    )
    desk.chat.wait_end()
    assert (
        page.locator("#chat .md > *:not(:last-child)").evaluate_all("(all) => all.map((one) => one.outerHTML)")[
            -len(drawn) :
        ]
        == drawn
    )
    after = page.evaluate(
        "[...document.querySelectorAll('#chat [data-testid=bot] .md')].at(-1).getBoundingClientRect().height"
    )
    assert after == pytest.approx(before, abs=26), "at most one more line"


def test_a_print_has_the_whole_conversation(desk: Desk, tmp_path: Path) -> None:
    replies = [f"Reply {i}\n\n" + f"paragraph of {i} " * 60 + f"\n\nlast line of {i}" for i in range(25)]
    messages = [
        m for text in replies for m in ({"role": "user", "content": "Q"}, {"role": "assistant", "content": text})
    ]
    made = httpx.post(desk.app.url + "conversations", json={"messages": messages}).json()
    desk.chat.open(f"{desk.app.url}?conversation={made['conversation_id']}")
    page = desk.chat.page
    expect(page.locator("#earlier")).to_be_visible()
    page.pdf(path=tmp_path / "some.pdf")
    some = "".join(p.extract_text() for p in PdfReader(tmp_path / "some.pdf").pages)
    assert all(f"Reply {i}" in some and f"last line of {i}" in some for i in range(25))
    assert page.locator(".printed-earlier").count() == 0, "it is there for the print alone"
    page.route("**/conversations/*", lambda route: route.abort())
    page.pdf(path=tmp_path / "cut.pdf")
    cut = "".join(p.extract_text() for p in PdfReader(tmp_path / "cut.pdf").pages)
    assert "Not printed: 20 earlier messages" in cut
    page.unroute("**/conversations/*")
    page.click("#earlier")
    expect(page.locator("#chat [data-testid=bot]")).to_have_count(25)
    page.evaluate("document.body.classList.add('dark')")
    page.pdf(path=tmp_path / "all.pdf")
    pages = PdfReader(tmp_path / "all.pdf").pages
    text = "".join(p.extract_text() for p in pages)
    assert len(pages) > 5
    assert all(f"Reply {i}" in text and f"last line of {i}" in text for i in range(25))
    assert "Not printed" not in text and "Message the model" not in text and "Enter sends" not in text
