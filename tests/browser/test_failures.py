"""A reply that failed: its card, and what is not repeated elsewhere."""

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

CARD = "#chat .failure"


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


@pytest.fixture
def chat(reused_chat: Chat) -> Chat:
    return reused_chat


def fail(chat: Chat, fault: str) -> None:
    chat.send(fault)
    chat.wait_end()
    expect(chat.page.locator(CARD)).to_be_visible()


@pytest.mark.parametrize(
    ("fault", "cause", "code"),
    [
        ("rate limit", "Rate limited.", "rate_limited"),
        ("wrong key", "The scripted provider rejected the key:", "authentication"),
        ("cut", "Connection lost mid-reply.", "backend_unavailable"),
    ],
)
def test_failed_reply_ends_with_a_card(chat: Chat, fault: str, cause: str, code: str) -> None:
    fail(chat, fault)
    card = chat.page.locator(CARD)
    assert card.locator("b").inner_text() == cause
    assert card.locator(".row").inner_text().split("\n") == ["Retry", "Switch model", "Show details"]
    card.get_by_text("Show details").click()
    expect(card.locator("dd").first).to_have_text(code)
    assert "Retryable" in card.locator("dl").inner_text()
    card.get_by_text("Hide details").click()
    expect(card.locator("dl")).to_be_hidden()
    if fault == "cut":
        assert chat.reply().startswith("This reply breaks off")
    chat.page.reload()
    expect(chat.page.locator(f"{CARD} b")).to_have_text(cause)
    chat.page.locator(f"{CARD} .more").click()
    expect(chat.page.locator(f"{CARD} dd").first).to_have_text(code)
    assert chat.errors == []


def test_rate_limit_is_one_sentence_that_says_when(chat: Chat) -> None:
    fail(chat, "rate limit")
    assert chat.page.locator(f"{CARD} p").inner_text().startswith("Rate limited. Try again in 60 s.")


def test_failure_is_an_alert_only_when_it_happens(chat: Chat) -> None:
    alert = chat.page.locator("#live-line [role=alert]")
    fail(chat, "wrong key")
    expect(alert).to_contain_text("rejected the key")
    assert "rejected the key" not in (chat.page.text_content("#live-line [role=status]") or "")
    assert "".join(chat.page.locator(".toast-wrap").all_inner_texts()) == "", "the card says it already"
    chat.page.reload()
    expect(chat.page.locator(CARD)).to_be_visible()
    chat.page.wait_for_timeout(500)
    expect(alert).to_have_text("")


def test_retry_on_the_card_begins_another_version(chat: Chat) -> None:
    fail(chat, "wrong key")
    chat.wait_next_end(chat.page.locator(CARD).get_by_text("Retry").click)
    expect(chat.page.locator("#chat .versions").last).to_contain_text("2/2")
    expect(chat.page.locator("#prompt textarea")).to_be_focused()


def test_switch_model_opens_the_menu_of_models(chat: Chat) -> None:
    fail(chat, "wrong key")
    chat.page.locator(CARD).get_by_text("Switch model").click()
    expect(chat.page.get_by_role("option", name="Parrot")).to_be_visible()
    chat.page.keyboard.press("Escape")


def test_stopped_reply_keeps_a_quiet_note(chat: Chat) -> None:
    chat.send("endless")
    chat.wait_token()
    chat.stop()
    assert chat.page.locator("#chat .note").inner_text() == "Stopped by you"
    assert chat.page.locator(CARD).count() == 0


def test_notice_covers_no_control(chat: Chat) -> None:
    page = chat.page
    page.click("#prompt textarea")
    chat.type("/nosuch x")
    page.press("#prompt textarea", "Enter")
    chat.wait_toast("There is no command")
    covered = page.evaluate("""() => {
      const area = document.querySelector('.toast-body').getBoundingClientRect();
      const places = ':is(#header, #agent-state, #composer, #below)';
      const controls = document.querySelectorAll(`${places} :is(button, input, textarea)`);
      return [...controls].filter((one) => {
        const { left, right, top, bottom, width } = one.getBoundingClientRect();
        return width && left < area.right && right > area.left && top < area.bottom && bottom > area.top;
      }).length;
    }""")
    assert covered == 0
