"""Inside the real model: the probability of each token, where the options ask for it, and what it read again."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

TOKENS = "#tokens .flow button"


@pytest.fixture(scope="module")
def app(model_app: RunningApp) -> RunningApp:
    return model_app


def ask_for_probabilities(chat: Chat, *, wanted: bool = True) -> None:
    chat.page.click("#show-options")
    chat.page.set_checked("#probabilities input", wanted)
    chat.page.keyboard.press("Escape")


def events_of(chat: Chat, app: RunningApp) -> list[dict[str, Any]]:
    """The record of the latest reply."""
    run = str(chat.page.locator("#chat .turn a").last.evaluate("a => a.href")).partition("run=")[2]
    cookies = {one["name"]: one["value"] for one in chat.page.context.cookies()}
    return [json.loads(line) for line in httpx.get(f"{app.url}runs/{run}", cookies=cookies).text.splitlines()]


def recorded(chat: Chat, app: RunningApp) -> list[dict[str, Any]]:
    """The probabilities in the record of the latest reply."""
    return [each for event in events_of(chat, app) for each in event.get("logprobs", ())]


def test_tokens_show_what_was_recorded(chat: Chat, app: RunningApp) -> None:
    page = chat.page
    ask_for_probabilities(chat)
    chat.tab("Tokens")
    chat.send("Write one sentence about a lighthouse.")
    page.locator(TOKENS).first.wait_for()  # while it streams
    chat.wait_end()
    found = recorded(chat, app)
    assert len(found) > 3
    expect(page.locator(TOKENS)).to_have_count(len(found))
    assert "".join(page.locator(TOKENS).all_text_contents()).strip().startswith(chat.reply()[:20])

    page.locator(TOKENS).nth(2).hover()
    expect(page.locator("#tokens .which")).to_contain_text("Token 3 of")
    top = found[2]["top"]
    assert isinstance(top, list) and 5 <= page.locator("#tokens .about li").count() <= 6
    page.locator(TOKENS).first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tokens .which")).to_contain_text("Token 2 of")
    page.keyboard.press("End")
    expect(page.locator("#tokens .which")).to_contain_text(f"Token {len(found)} of")
    page.click("#tokens .surprise", position={"x": 1, "y": 10})
    expect(page.locator("#tokens .which")).to_contain_text("Token 1 of")
    page.reload()
    chat.tab("Tokens")
    expect(page.locator(TOKENS)).to_have_count(len(found))
    assert chat.errors == []


def test_reply_without_probabilities_says_how_to_get_them(
    open_chat: Callable[..., Chat], paced_app: RunningApp
) -> None:
    chat = open_chat(paced_app.url)
    chat.tab("Tokens")
    expect(chat.page.locator("#tokens .notice")).to_contain_text("Send a message")
    chat.send("Hi")
    chat.wait_end()
    expect(chat.page.locator("#tokens .notice")).to_contain_text("Turn on Token probabilities in Options")
    assert chat.page.locator(TOKENS).count() == 0
    assert chat.errors == []


def test_what_the_model_read_again_is_shown(chat: Chat, app: RunningApp) -> None:
    for message in ("What is a lighthouse?", "Who works there?"):
        chat.send(message)
        chat.wait_end()
    chat.tab("Context")
    (context,), (end,) = ([e for e in events_of(chat, app) if e["type"] == kind] for kind in ("context", "model_end"))
    cached = end["timings"]["cached_tokens"]
    assert 20 < cached < context["tokens"]
    said = f"{cached} tokens were in the model's cache. It read {context['tokens'] - cached}."
    expect(chat.page.locator("#context .reuse p")).to_have_text(said)
    rows = chat.page.locator("#context .given > li").all()
    marked = [n for n, row in enumerate(rows) if row.get_attribute("data-read") is not None]
    assert marked and marked[0] > 0, "the system prompt is in the cache"
    assert chat.errors == []


def test_a_click_on_an_alternative_makes_a_branch(chat: Chat, app: RunningApp) -> None:
    page = chat.page
    ask_for_probabilities(chat)
    chat.send("Write one sentence about a lighthouse.")
    chat.wait_end()
    chat.tab("Tokens")
    words = [(n, one) for n, one in enumerate(recorded(chat, app)) if n > 2]
    place, other = next(
        (n, token)
        for n, one in words
        for token, _ in one["top"]
        if token != one["token"] and token.strip().isalpha() and token.isascii()
    )
    beginning = "".join(one["token"] for one in recorded(chat, app)[:place]) + other
    page.locator(TOKENS).nth(place).click()
    shown = f"\N{LEFT DOUBLE QUOTATION MARK}{other.replace(' ', chr(0x2423))}\N{RIGHT DOUBLE QUOTATION MARK}"
    button = page.locator("#tokens .about").get_by_role("button", name=shown, exact=True)
    chat.wait_next_end(button.click)
    expect(page.locator("#chat .versions").last).to_contain_text("2/2")
    (whole,) = (event["content"] for event in events_of(chat, app) if event["type"] == "complete")
    assert whole.startswith(beginning) and len(whole) > len(beginning)
    assert page.locator("#tokens .about").is_hidden(), "the tokens are those of the new reply"
    assert chat.errors == []


def test_the_prompt_is_shown_token_by_token(chat: Chat, app: RunningApp) -> None:
    page = chat.page
    chat.send("Is <b>this</b> bold?\tAnd {{value}}?")
    chat.wait_end()
    chat.tab("Context")
    page.click("#context [data-context]")
    page.get_by_role("tab", name="Prompt").click()
    (context,) = (event for event in events_of(chat, app) if event["type"] == "context")
    spans = page.locator("#viewer-prompt .scroll span")
    expect(spans).to_have_count(context["tokens"])
    expect(page.locator("#viewer-prompt .about-prompt")).to_contain_text(
        f"{context['tokens']} tokens, 5 of them control"
    )
    assert "<b>this</b> bold?\N{RIGHTWARDS ARROW TO BAR}And {{value}}?" in "".join(spans.all_text_contents())
    assert page.locator("#viewer-prompt .scroll b").count() == 0
    page.get_by_role("tab", name="What was given").click()
    expect(page.locator("#viewer-context .given")).to_contain_text("bold?")
    page.keyboard.press("Escape")
    assert chat.errors == []
