"""Images on the page: chosen, dropped, pasted, removed, sent, shown again, and refused where the model takes none."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Locator, expect

from tests.app_process import RunningApp
from tests.axe import violations
from tests.browser.conftest import Chat
from tests.house import asked_for_replies
from tests.images import SVG, noise, opened, picture
from tests.providers import OpenAIServer, Reply

CONFIG = """
[limits]
image_bytes = 2000000

[[backends]]
name = "Seer"
kind = "openai"
model = "test-model"
base_url = "{server}"

[[backends]]
name = "Script"
kind = "scripted"
options = {{ speed = 20 }}
"""
DELIVER = """([kind, name, type, data]) => {
  const files = new DataTransfer(), bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  files.items.add(new File([bytes], name, { type }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === 'drop' ? new DragEvent('drop', { ...options, dataTransfer: files })
    : new ClipboardEvent('paste', { ...options, clipboardData: files });
  document.querySelector('#prompt textarea').dispatchEvent(event);
  return event.defaultPrevented;
}"""
MARKUP = "<img src=x onerror=window.hacked=1>.png"


@dataclass
class House:
    app: RunningApp
    server: OpenAIServer

    @property
    def given(self) -> list[tuple[int, int]]:
        content = asked_for_replies(self.server)[-1].body["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        return [opened(base64.b64decode(url.partition(",")[2])).size for url in urls]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with OpenAIServer(Reply(["A", " picture"])) as server:
        with RunningApp(tmp_path_factory.mktemp("app"), CONFIG.format(server=server.base_url)) as app:
            yield House(app, server)


@pytest.fixture(scope="module")
def app(house: House) -> RunningApp:
    return house.app


def file(name: str = "photo.png", data: bytes = picture("PNG", (60, 40))) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": data}


def add(chat: Chat, *files: FilePayload) -> None:
    with chat.page.expect_file_chooser() as chooser:
        chat.page.get_by_role("button", name="Add images").click()
    chooser.value.set_files(list(files))


def thumbnails(chat: Chat) -> Locator:
    return chat.page.locator("#images li:not(.pending) img")


def is_drawn(image: Locator) -> int:
    return int(image.evaluate("node => node.decode().then(() => node.naturalWidth)"))


def deliver(chat: Chat, kind: str, data: bytes, name: str = "photo.png", mime: str = "image/png") -> Any:
    return chat.page.evaluate(DELIVER, [kind, name, mime, base64.b64encode(data).decode()])


def test_images_are_added_removed_sent_and_shown(house: House, chat: Chat) -> None:
    add(chat, file("one.png"), file("two.png", picture("PNG", (30, 50))))
    expect(thumbnails(chat)).to_have_count(2)
    assert is_drawn(thumbnails(chat).first) == 60
    assert deliver(chat, "drop", picture("PNG", (20, 20)), "three.png")
    assert deliver(chat, "paste", picture("JPEG", (25, 20)), "four.jpg", "image/jpeg")
    expect(thumbnails(chat)).to_have_count(4)
    chat.page.get_by_role("button", name="Remove two.png").click()
    expect(thumbnails(chat)).to_have_count(3)
    expect(chat.page.locator("#images p")).to_have_text("two.png was removed.")

    chat.send("What is this?")
    chat.wait_end()
    assert house.given == [(60, 40), (20, 20), (25, 20)]
    expect(thumbnails(chat)).to_have_count(0)
    shown = chat.page.locator("#chat .user-row .pictures img")
    expect(shown).to_have_count(3)
    assert [is_drawn(shown.nth(n)) for n in range(3)] == [60, 20, 25]
    assert shown.first.get_attribute("alt") == "Image 1: 60 by 40 pixels"
    chat.page.reload()
    chat.wait_ready()
    assert is_drawn(shown.first) == 60

    chat.send("And now?")
    chat.wait_end()
    chat.page.get_by_role("tab", name="Context").click()
    chat.page.click("#context [data-context]")
    pictured = chat.page.locator("#viewer-context .given .pictures img")
    expect(pictured).to_have_count(3)
    assert is_drawn(pictured.first) == 60
    assert chat.page.locator("#viewer-context .total strong").inner_text().startswith("≈")
    assert chat.errors == []


def test_edited_message_keeps_its_images_and_undone_ones_return(house: House, chat: Chat) -> None:
    add(chat, file())
    expect(thumbnails(chat)).to_have_count(1)
    chat.send("first")
    chat.wait_end()
    chat.page.locator("#chat .user-row").hover()
    chat.page.locator("#chat").get_by_role("button", name="Edit").click()
    box = chat.page.locator("#chat textarea")
    expect(box).to_have_value("first")
    box.fill("edited")
    chat.wait_next_end(lambda: box.press("Enter"))
    assert house.given == [(60, 40)]
    expect(chat.page.locator("#chat .pictures img")).to_have_count(1)
    chat.page.locator("#chat").get_by_role("button", name="Undo").click()
    expect(chat.page.locator("#prompt textarea")).to_have_value("edited")
    expect(thumbnails(chat)).to_have_count(1)
    assert is_drawn(thumbnails(chat)) == 60
    chat.send("edited")
    chat.wait_end()
    assert house.given == [(60, 40)]


def test_model_without_images_says_so_before_sending(house: House, chat: Chat) -> None:
    status, before = chat.page.locator("#images p"), len(asked_for_replies(house.server))
    add(chat, file())
    expect(thumbnails(chat)).to_have_count(1)
    chat.choose("backend", "Script")
    expect(status).to_have_text("Script takes no images. Choose Seer to send one.")
    chat.type("What is this?")
    chat.page.press("#prompt textarea", "Enter")
    expect(chat.page.locator("#hint span")).to_contain_text("Script takes no images")
    assert chat.page.input_value("#prompt textarea") == "What is this?"
    assert deliver(chat, "paste", picture())
    expect(status).to_contain_text("'photo.png' cannot be added: Script takes no images.")
    expect(thumbnails(chat)).to_have_count(1)
    assert len(asked_for_replies(house.server)) == before
    chat.choose("backend", "Seer")
    expect(status).to_have_text("")
    chat.send("What is this?")
    chat.wait_end()
    assert house.given == [(60, 40)]


def test_bad_files_are_refused_by_their_names(chat: Chat) -> None:
    status = chat.page.locator("#images p.bad")
    deliver(chat, "drop", SVG, "drawing.svg", "image/svg+xml")
    expect(status).to_have_text("'drawing.svg' cannot be added: allowed are PNG, JPEG, WebP and GIF images.")
    add(chat, file(MARKUP, b"text"))
    expect(status).to_contain_text(MARKUP)
    add(chat, file("large.png", noise((2000, 2000))))
    expect(status).to_have_text("'large.png' cannot be added: it is too large, at most 2 MB are allowed.")
    add(chat, *(file(f"{n}.png") for n in range(7)))
    expect(status).to_contain_text("'5.png' cannot be added: a message can have at most 5 images.")
    expect(thumbnails(chat)).to_have_count(5)
    assert chat.page.evaluate("window.hacked") is None
    assert chat.errors == []


def test_images_on_a_phone_and_for_a_screen_reader(house: House, chat: Chat) -> None:
    page, found = chat.page, set[str]()
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    add(chat, *(file(f"{n}.png", picture("PNG", (400, 300))) for n in range(5)))
    expect(thumbnails(chat)).to_have_count(5)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 760})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.wait_for_timeout(100)
            found.update(violations(page))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.emulate_media(color_scheme="light")
    chat.send("What is this?")
    chat.wait_end()
    found.update(violations(page))
    box = page.locator("#chat .pictures img").first.bounding_box()
    assert box and box["width"] <= 300 and abs(box["width"] / box["height"] - 4 / 3) < 0.05
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert found == set()


def test_images_by_keyboard(house: House, chat: Chat) -> None:
    page = chat.page
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add images").focus()
        page.keyboard.press("Enter")
    chooser.value.set_files([file()])
    expect(thumbnails(chat)).to_have_count(1)
    page.get_by_role("button", name="Remove photo.png").focus()
    page.keyboard.press("Enter")
    expect(thumbnails(chat)).to_have_count(0)
    expect(page.locator("#prompt textarea")).to_be_focused()
