"""The probabilities of tokens as marks in the conversation, each at its place in the drawn Markdown."""

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.providers import OpenAIServer, Stream

MARKDOWN = """# Title w1

Some **bold w2**, *w3* and `code w4`, [a link w5](https://x.example/w6) & w7 < w8, \\*w9\\* and snake_w10_case.
No no no no no no. The price is $5, w11.

> A quote w12 with \N{GRINNING FACE} and \N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} w13.

1. first w14
2. second **w15** third

| head w16 | w17 |
|---|:-:|
| cell w18 | `w19` |

$$x^2 + w20$$

Inline $a_1$ then w21.

```python
def w22(x):
    return "w23"  # w24 no no
```

<b>w25</b> \u0645\u0631\u062d\u0628\u0627 w26.
"""
WORD = r"w\d+|[^\W\d_]+"
LEVELS = 6
MARKS = """() => [1, 2, 3, 4, 5, 6]
  .flatMap((level) => [...CSS.highlights.get(`token-${level}`) ?? []].map((range) => [range, level]))
  .filter(([{ startContainer: node }]) => node.isConnected)
  .map(([{ startContainer: node, startOffset: from, endOffset: to }, level]) => [node, from, to, level])
  .sort(([a, i], [b, j]) => a === b ? i - j : a.compareDocumentPosition(b) & 4 ? -1 : 1)
  .map(([node, from, to, level]) => [node.data.slice(from, to), level])"""
MARKED_IN = """(place) => [...CSS.highlights.get('token-1') ?? []]
  .some(({ startContainer: node }) => node.isConnected && node.parentElement.closest(place))"""
CHOSEN = """() => {
  const [one] = CSS.highlights.get('token-chosen') ?? [];
  return one?.startContainer.data.slice(one.startOffset, one.endOffset) === 'w3';
}"""
REPLY = "() => [...document.querySelectorAll('#chat .bot-row [data-testid=bot]')].at(-1).innerHTML"
AT = """([word, which]) => {
  const walker = document.createTreeWalker(document.querySelector('#chat .bot-row [data-testid=bot]'), 4);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.data.indexOf(word);
    if (at < 0 || which-- > 0) continue;
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + word.length);
    node.parentElement.scrollIntoView({ block: 'center' });
    const { left, top, width, height } = range.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  }
}"""


def level(number: int) -> int:
    """The strength of a token's mark, 1 to 6."""
    return 1 + number * 7 % LEVELS


def is_emoji(text: str) -> bool:
    return len(text) == 1 and len(text.encode()) == 4


def parts(text: str) -> list[str]:
    """The text as a model's tokens."""
    return re.findall(r" ?\w+|\s+|[^\w\s]", text)


def chunk(content: str, *logprobs: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "logprobs": {"content": list(logprobs)}, "finish_reason": None}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "test-model", "choices": [choice]}


def about(token: str, number: int, raw: list[int] | None = None) -> dict[str, Any]:
    logprob = -level(number) * 8 / LEVELS * math.log(2)
    top = [{"token": token, "logprob": logprob}, {"token": " other", "logprob": -0.5}]
    return {"token": token, "logprob": logprob, "bytes": raw or list(token.encode()), "top_logprobs": top}


def chunks(text: str, pause: float = 0.0) -> Iterator[Any]:
    """A streamed reply with probabilities. An emoji is made of four tokens, which are its bytes."""
    for number, token in enumerate(parts(text)):
        if is_emoji(token):
            found = [about("\ufffd", number, [byte]) for byte in token.encode()]
            yield from (chunk("", one) for one in found[:3])
            yield chunk(token, found[3])
        else:
            yield chunk(token, about(token, number))
        if pause:
            yield pause
    end = {**chunk(""), "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield from (end, "data: [DONE]\n\n")


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(Stream(list(chunks(MARKDOWN)))) as server:
        yield server


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, server: OpenAIServer) -> Iterator[RunningApp]:
    entry = f'[[backends]]\nname = "Remote"\nkind = "openai"\nmodel = "test-model"\nbase_url = "{server.base_url}"\n'
    with RunningApp(tmp_path_factory.mktemp("marks"), entry) as app:
        yield app


def show(page: Page, *, wanted: bool = True) -> None:
    page.click("#show-options")
    page.set_checked("#probabilities input", wanted)
    page.keyboard.press("Escape")


def marks(page: Page) -> list[tuple[str, int]]:
    return [(text, level) for text, level in page.evaluate(MARKS)]


def wait_marks(page: Page, *, some: bool = True) -> None:
    page.wait_for_function(f"() => Boolean(CSS.highlights.get('token-1')?.size) === {json.dumps(some)}")


def whole(found: list[tuple[str, int]]) -> dict[str, int]:
    """The level of each word of the marks, whose text may be in several nodes."""
    return {word: level for text, level in found for word in re.findall(WORD, text)}


def test_each_token_is_marked_at_its_place(chat: Chat, server: OpenAIServer) -> None:
    page = chat.page
    server.answers = [Stream(list(chunks(MARKDOWN)))]
    show(page)
    chat.send("Write Markdown.")
    chat.wait_end()
    wait_marks(page)
    page.locator("#chat .katex").first.wait_for()
    page.locator("#chat .code .token").first.wait_for()
    page.wait_for_timeout(300)  # the marks follow in the next frame
    tokens = parts(MARKDOWN)
    expected = whole([(token, level(number)) for number, token in enumerate(tokens)])
    found = whole(marks(page))
    words = [f"w{n}" for n in range(1, 27) if n not in (6, 20)]  # those are a link's address and in a formula
    assert {word: found.get(word) for word in words} == {word: expected[word] for word in words}
    assert not {"w6", "w20"} & found.keys()
    arabic = next(token.strip() for token in tokens if "\u0645" in token)
    assert found[arabic] == expected[arabic]
    repeated = [level(number) for number, token in enumerate(tokens) if token.strip().lower() == "no"]
    assert [level for text, level in marks(page) if text.strip().lower() == "no"] == repeated
    emojis = [level(number) for number, token in enumerate(tokens) if is_emoji(token)]
    assert [level for text, level in marks(page) if is_emoji(text)] == emojis
    assert chat.errors == []


def test_the_reply_and_its_copies_stay_as_they_are(chat: Chat, app: RunningApp, server: OpenAIServer) -> None:
    page = chat.page
    server.answers = [Stream(list(chunks(MARKDOWN)))]
    show(page)
    chat.send("Write Markdown.")
    chat.wait_end()
    wait_marks(page)
    page.locator("#chat .katex").first.wait_for()
    page.locator("#chat .code .token").first.wait_for()
    marked, text = page.evaluate(REPLY), chat.reply()
    show(page, wanted=False)
    wait_marks(page, some=False)
    assert page.evaluate(REPLY) == marked and chat.reply() == text
    show(page)
    wait_marks(page)
    page.reload()
    page.locator("#chat .bot-row").first.wait_for()
    assert marks(page) == [], "the switch is off on a new page"
    show(page)
    wait_marks(page)
    assert whole(marks(page))["w26"] == level(next(n for n, token in enumerate(parts(MARKDOWN)) if token == " w26"))
    assert chat.errors == []


def test_the_token_under_the_pointer_is_explained(chat: Chat, server: OpenAIServer) -> None:
    page = chat.page
    server.answers = [Stream(list(chunks(MARKDOWN)))]
    show(page)
    chat.send("Write Markdown.")
    chat.wait_end()
    wait_marks(page)
    tip = page.locator(".token-tip")
    page.mouse.move(*page.evaluate(AT, ["w15", 0]))
    expect(tip).to_be_visible()
    expect(tip.locator(".which")).to_contain_text("w15")
    expect(tip.locator("li")).to_have_count(2)
    expect(tip).to_contain_text("entropy")
    page.mouse.move(*page.evaluate(AT, ["\N{GRINNING FACE}", 0]))
    expect(tip.locator(".how")).to_contain_text("Part of a character: bytes 240")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    chat.tab("Tokens")
    number = [token.strip() for token in parts(MARKDOWN)].index("w3")
    page.locator("#tokens .flow button").nth(number).focus()
    page.wait_for_function(CHOSEN)
    assert chat.errors == []


def test_a_growing_reply_is_marked_and_nothing_is_read_where_the_switch_is_off(
    chat: Chat, server: OpenAIServer
) -> None:
    page, text = chat.page, " ".join(f"w{n}" for n in range(80))
    server.answers = [Stream(list(chunks(text, 0.05)))]
    show(page)
    chat.send("Count.")
    page.wait_for_function(MARKED_IN, arg="#live-reply")
    chat.wait_end()
    page.wait_for_function(MARKED_IN, arg="#chat")
    show(page, wanted=False)
    wait_marks(page, some=False)
    server.answers = [Stream(list(chunks("plain words")))]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    chat.send("Again.")
    chat.wait_end()
    page.wait_for_timeout(700)  # a reader asks twice a second
    assert [url for url in asked if "/runs/" in url and "after=" in url] == []
    assert marks(page) == []
    assert chat.errors == []


def blend(colour: list[float], share: float, below: list[float]) -> list[float]:
    return [share * one + (1 - share) * other for one, other in zip(colour, below, strict=True)]


def luminance(colour: list[float]) -> float:
    shares = [one / 255 for one in colour]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


COLOURS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const style = getComputedStyle(document.querySelector('#chat .bot-row [data-testid=bot]'));
  const of = (name) => rgb(style.getPropertyValue(name));
  const names = ['body-text-color', 'gb-phase-thinking', 'body-background-fill', 'gb-side', 'gb-sunk'];
  return names.map((one) => of(`--${one}`));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marked_text_can_be_read(open_chat: Callable[..., Chat], app: RunningApp, scheme: str) -> None:
    chat = open_chat(f"{app.url}?__theme={scheme}")
    chat.send("Hi")
    chat.wait_end()
    text, colour, *surfaces = chat.page.evaluate(COLOURS)
    for surface in surfaces:
        dark, light = sorted((luminance(text), luminance(blend(colour, 0.36, surface))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5
