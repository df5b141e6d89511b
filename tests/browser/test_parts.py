"""Thinking, tool calls and approvals on the page: while a reply grows, and as they stay in the conversation."""

import pytest

from backends.script import TOUR_THOUGHTS
from tests.app_process import RunningApp
from tests.browser.conftest import Chat

ASKS, ANSWERED = "I ask three tools at once.", "All three have answered"
COUNTED = "\n".join(f"{number} of 8" for number in range(1, 9))
LIVE = "#live-reply"

NESTING = """bars => bars.map((bar, i) => {
  const depth = (one) => parseInt(one.firstElementChild.style.paddingLeft);
  const above = bars.slice(0, i).filter((other) => depth(other) < depth(bar)).at(-1);
  const name = (one) => one?.firstElementChild.textContent ?? null;
  return [name(bar), name(above)];
})"""
END = """(where) => {
  const said = [...document.querySelectorAll(`${where} [data-testid=bot] p`)].at(-1);
  const column = document.querySelector('#scroll'), rest = column.scrollHeight - column.clientHeight - column.scrollTop;
  return said?.textContent.includes('to see what.') && rest < 2 ? said.getBoundingClientRect().top : null;
}"""
"""Where the last paragraph of the reply to `tools` is, for a reader who is at the end."""


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


@pytest.fixture
def scripted(reused_chat: Chat) -> Chat:
    return reused_chat


def test_tools_are_seen_at_work(scripted: Chat) -> None:
    page = scripted.page
    scripted.send("tools")
    slow, quick = scripted.part("count", LIVE), scripted.part("calculator", LIVE)
    slow.locator("pre", has_text="2 of 8").wait_for(state="attached")
    early = slow.locator("pre").last.text_content() or ""
    assert page.locator(f"{LIVE} .parts details").count() == 3
    assert page.locator(f"{LIVE} .live").count() == 1
    assert quick.locator("pre").last.text_content() == "391"
    assert (quick.locator("small").text_content() or "").endswith(" s")
    assert scripted.live() == ASKS, "the live reply holds its text and nothing else"
    assert page.locator("#chat .parts").count() == 0

    nested = dict(page.eval_on_selector_all("#timeline .bars > li", NESTING))
    # a step that wraps one call is no bar of its own, unless it took longer
    assert {nested[name] for name in ("calculator", "clock", "count")} <= {"agent", "tools"}
    assert nested.get("tools", "agent") == "agent"
    for name, given, found in [("calculator", "17*23", "391"), ("count", '"upto": 8', "2 of 8")]:
        assert not scripted.bar(name).locator(".detail").is_visible()
        scripted.bar(name).locator("> button").click()
        scripted.bar(name).locator("pre", has_text=given).wait_for()
        scripted.bar(name).locator("pre", has_text=found).wait_for()

    slow.locator("pre", has_text="4 of 8").wait_for(state="attached")
    later = slow.locator("pre").last.text_content() or ""
    assert later.startswith(early) and len(later) > len(early)
    scripted.wait_end()
    scripted.bar("count").locator("pre", has_text="8 of 8").wait_for()
    assert scripted.errors == []


def test_parts_stay_in_the_conversation_open_as_they_were(scripted: Chat) -> None:
    page = scripted.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    scripted.send("tools")
    scripted.part("count", LIVE).locator("summary").click()
    scripted.part("count", LIVE).get_by_text("2 of 8").wait_for()
    place = page.wait_for_function(END, arg="#live-reply").json_value()
    scripted.wait_end()
    assert page.evaluate(END, "#chat") == pytest.approx(place, abs=2), "the reader's place is kept"
    assert page.locator(f"{LIVE} details").count() == 0
    page.locator("#chat .parts details[open]").wait_for()
    assert [name.text_content() for name in page.locator("#chat details[open] summary b").all()] == ["count"]

    def look() -> None:
        assert page.locator("#chat .parts summary b").all_text_contents() == ["calculator", "clock", "count"]
        assert scripted.part("count").locator("pre").all_text_contents()[1] == COUNTED
        calculator = scripted.part("calculator")
        assert not calculator.locator("pre").first.is_visible()
        calculator.locator("summary").click()
        calculator.locator("pre").first.wait_for()
        assert calculator.locator("p").all_inner_texts() == ["Input", "Output"]
        assert calculator.locator("pre").all_inner_texts() == ['{\n "expression": "17*23"\n}', "391"]
        assert scripted.reply().startswith(ASKS) and ANSWERED in scripted.reply()

    look()
    assert page.locator("#chat .bot-row:has(.parts) + .message-buttons").is_hidden()
    page.locator("#chat").get_by_label("Copy message").last.click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).includes('All three')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(ASKS) and "391" not in copied and "<" not in copied

    scripted.open(page.url)
    page.wait_for_selector("#chat .parts")
    look()
    scripted.bar("calculator").locator("> button").click()
    scripted.bar("calculator").locator("pre", has_text="391").wait_for()
    assert scripted.errors == []


ORDER = """(place) => [...document.querySelectorAll(`${place} [data-testid=bot]`)].map((row) => {
  const names = [...row.querySelectorAll('summary b')].map((name) => name.textContent);
  return names.length ? names.join(' ') : row.innerText.trim().split(/\\s+/).slice(0, 3).join(' ');
})"""


def test_thinking_texts_and_tools_keep_their_order_and_stay_open(scripted: Chat) -> None:
    page = scripted.page
    scripted.send("tour")
    scripted.part("Thought", LIVE).locator("summary").click()
    scripted.part("count", LIVE).locator("summary").click()
    page.wait_for_function(f"({ORDER})('{LIVE}').length === 4")
    assert page.locator(f"{LIVE} details[open] summary b").all_text_contents() == ["Thought", "count"]
    expected = ["Thought", "What you are", "calculator count", "async for chunk"]
    page.wait_for_function(f"({ORDER})('{LIVE}')[3] === '{expected[3]}'")
    assert page.evaluate(ORDER, LIVE) == expected
    scripted.wait_end()
    assert page.evaluate(ORDER, "#chat") == expected
    assert page.locator("#chat details[open] summary b").all_text_contents() == ["Thought", "count"]
    scripted.open(page.url)
    page.wait_for_selector("#chat .parts")
    assert page.evaluate(ORDER, "#chat") == expected
    assert scripted.errors == []


def test_text_stays_in_its_place_when_tools_come_and_when_the_reply_ends(scripted: Chat) -> None:
    scripted.page.evaluate("""() => {
      const tops = window.__tops = new Set();
      const look = () => {
        const asked = document.querySelector('#chat .user-row'), is = (p) => p.textContent.startsWith('I ask');
        const text = [...document.querySelectorAll(':is(#chat, #live-reply) [data-testid=bot] p')].find(is);
        if (text) tops.add(Math.round(text.getBoundingClientRect().top - asked.getBoundingClientRect().bottom));
        requestAnimationFrame(look);
      };
      look();
    }""")
    scripted.send("tools")
    scripted.wait_end()
    scripted.page.wait_for_timeout(300)
    tops = scripted.page.evaluate("[...window.__tops]")
    assert max(tops) - min(tops) <= 1, tops


def test_tour_shows_a_thought_two_tools_and_every_phase(scripted: Chat) -> None:
    scripted.watch_phases()
    scripted.send("tour")
    scripted.part("Thought", LIVE).wait_for()
    scripted.wait_end()
    assert scripted.page.locator("#chat .parts summary b").all_text_contents() == ["Thought", "calculator", "count"]
    assert scripted.part("Thought").locator("pre").text_content() == TOUR_THOUGHTS
    assert "What you are looking at" in scripted.reply() and "Type approval to see" in scripted.reply()
    phases = iter(scripted.phases)
    wanted = ["thinking", "streaming", "tool", "streaming", "complete"]
    assert all(phase in phases for phase in wanted), "in this order"
    drawn = [one.get_attribute("data-p") for one in scripted.page.locator("#timeline .stretches i").all()]
    assert drawn[-5:] == ["thinking", "streaming", "tool", "waiting", "streaming"]
    assert scripted.bar("calculator").is_visible() and scripted.bar("count").is_visible()
    assert scripted.errors == []


def test_one_call_is_cancelled_and_the_others_give_their_results(scripted: Chat) -> None:
    scripted.send("tools")
    scripted.part("count", LIVE).locator("pre", has_text="2 of 8").wait_for(state="attached")
    scripted.bar("calculator").locator("> button").click()
    assert scripted.bar("calculator").get_by_role("button", name="Cancel this call").count() == 0
    scripted.bar("count").locator("> button").click()
    scripted.bar("count").get_by_role("button", name="Cancel this call").click()
    scripted.page.wait_for_selector("#timeline .bars > li[data-failed][title^='count: cancelled']")
    scripted.wait_end()
    cancelled = scripted.part("count")
    assert "failed" in (cancelled.get_attribute("class") or "")
    assert cancelled.locator("p").last.text_content() == "Failed: cancelled by the visitor"
    seen = cancelled.locator("pre").last.text_content() or ""
    assert "2 of 8" in seen and "8 of 8" not in seen, "what it had said stays"
    assert scripted.part("calculator").locator("pre").last.text_content() == "391"
    assert scripted.phase == "complete" and ANSWERED in scripted.reply()
    assert scripted.errors == []


def test_stop_ends_the_tools_too_and_retry_runs_them_again(scripted: Chat) -> None:
    scripted.send('/count {"upto": 900, "pause_s": 1}')
    scripted.part("count", LIVE).locator("pre", has_text="1 of 900").wait_for(state="attached")
    scripted.stop()
    assert scripted.phase == "stopped"
    assert scripted.part("count").locator("p").last.text_content() == "Failed: cancelled"
    scripted.page.locator("#chat").get_by_label("Retry").last.click()
    scripted.part("count", LIVE).locator("pre", has_text="1 of 900").wait_for(state="attached")
    scripted.stop()
    assert scripted.page.locator("#chat .parts details").count() == 1
    assert scripted.errors == []


def test_edit_and_undo_know_the_message_below_parts(scripted: Chat) -> None:
    for text in ("/calculator 1+1", "/calculator 2+2"):
        scripted.send(text)
        scripted.wait_end()
    page = scripted.page
    page.hover("#chat [data-testid=user] >> nth=1")
    page.locator("#chat").get_by_label("Edit").nth(1).click()
    page.fill("#chat textarea", "/calculator 5*5")
    scripted.wait_next_end(page.get_by_label("Submit").click)
    assert scripted.texts("user") == ["/calculator 1+1", "/calculator 5*5"]
    assert [part.text_content() for part in page.locator("#chat .parts details pre:last-child").all()] == ["2", "25"]
    named = [one.get_attribute("aria-label") or "" for one in page.locator("#chat [aria-label]").all()]
    assert not [name for name in named if "<" in name], "markup is nothing to read aloud"
    page.locator("#chat").get_by_label("Undo").last.click()
    page.wait_for_function("document.querySelector('#prompt textarea').value === '/calculator 5*5'")
    assert scripted.texts("user") == ["/calculator 1+1"]
    assert page.locator("#chat .parts details").count() == 1
    assert scripted.errors == []


@pytest.fixture
def asked(scripted: Chat) -> Chat:
    """A page on which a call waits for its visitor's word."""
    scripted.send("approval")
    scripted.page.wait_for_selector(".asked .card")
    return scripted


def card(chat: Chat) -> str:
    """The input in the card of the call that waits."""
    return chat.page.input_value(".asked textarea")


def answer(chat: Chat, button: str) -> None:
    chat.page.locator(".asked").get_by_role("button", name=button).click()


def edit(chat: Chat, text: str) -> None:
    answer(chat, "Edit")
    chat.page.fill(".asked textarea", text)


def test_an_approved_call_is_made_with_the_input_that_was_shown(asked: Chat) -> None:
    assert asked.phase == "approval"
    assert "careful_tool waits for your approval" in asked.page.inner_text(".asked")
    assert card(asked) == '{\n  "text": "Hello"\n}'
    assert not asked.page.locator(".asked textarea").is_editable()
    answer(asked, "Approve")
    asked.wait_end()
    assert asked.part("careful_tool").locator("pre").last.text_content() == "It said: Hello"
    assert "You have decided" in asked.reply()
    assert asked.page.locator(".asked .card").count() == 0
    assert asked.errors == []


def test_an_edited_call_is_made_with_the_new_input(asked: Chat) -> None:
    edit(asked, '{"text": "Good')
    answer(asked, "Approve")
    asked.page.get_by_text("This is not valid JSON").wait_for()
    assert asked.phase == "approval", "nothing was sent"
    asked.page.fill(".asked textarea", '{"text": "<b>Good</b> bye"}')
    answer(asked, "Approve")
    asked.wait_end()
    given, said = asked.part("careful_tool").locator("pre").all_text_contents()
    assert said == "It said: <b>Good</b> bye"
    assert given == '{\n "text": "<b>Good</b> bye"\n}', "the part tells what was run"
    assert "You have decided" in asked.reply()
    assert asked.errors == []


@pytest.mark.parametrize("text", ["null", "[1]", ""])
def test_an_edit_that_is_no_object_is_reported_and_can_be_corrected(asked: Chat, text: str) -> None:
    edit(asked, text)
    answer(asked, "Approve")
    asked.page.locator(".asked .why:not(:empty)").wait_for(timeout=5000)
    asked.page.fill(".asked textarea", '{"text": "mended"}')
    answer(asked, "Approve")
    asked.wait_end()
    assert asked.part("careful_tool").locator("pre").last.text_content() == "It said: mended"
    assert asked.errors == []


def test_a_refused_call_is_reported_to_the_model_and_the_reply_continues(asked: Chat) -> None:
    answer(asked, "Refuse")
    asked.wait_end()
    refused = asked.part("careful_tool")
    assert "failed" in (refused.get_attribute("class") or "")
    assert refused.locator("p").last.text_content() == "Failed: refused by the visitor"
    assert asked.phase == "complete" and "You have decided" in asked.reply()
    assert "The visitor refused this call" in (asked.page.text_content("#context .given") or "")
    assert asked.errors == []


def test_a_waiting_call_is_there_after_a_reload_and_then_answered(asked: Chat) -> None:
    asked.open(asked.page.url)
    asked.page.wait_for_selector(".asked .card")
    assert asked.phase == "approval" and '"Hello"' in card(asked)
    edit(asked, '{"text": "after the reload"}')
    answer(asked, "Approve")
    asked.wait_end()
    assert asked.part("careful_tool").locator("pre").last.text_content() == "It said: after the reload"
    assert asked.errors == []


def test_stop_and_cancel_end_a_waiting_call_too(asked: Chat) -> None:
    asked.bar("careful_tool").locator("> button").click()
    asked.bar("careful_tool").get_by_role("button", name="Cancel this call").click()
    asked.wait_end()
    assert asked.part("careful_tool").locator("p").last.text_content() == "Failed: cancelled by the visitor"
    assert asked.phase == "complete" and asked.page.locator(".asked .card").count() == 0
    asked.send("approval")
    asked.page.wait_for_selector(".asked .card")
    asked.page.click("#stop")
    asked.wait_end()
    assert asked.phase == "stopped" and asked.page.locator(".asked .card").count() == 0
    assert asked.errors == []


def test_a_second_page_shows_the_card_until_the_first_one_answers(asked: Chat) -> None:
    other = Chat(asked.page.context.new_page(), asked.page.url)
    other.page.wait_for_selector(".asked .card")
    assert card(other) == card(asked)
    answer(asked, "Approve")
    asked.wait_end()
    other.page.wait_for_selector(".asked .card", state="detached")
    other.wait_end()
    assert other.part("careful_tool").locator("pre").last.text_content() == "It said: Hello"
    assert asked.errors == other.errors == []
    other.page.close()
