"""A visitor's own documents: added, searched, removed; files that cannot be taken; names and texts that are hostile."""

from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, expect

from tests.browser.conftest import Chat

WHALES = b"# Whales\n\nThe narwhalish is the shyest of all.\n\n# Boats\n\nA kayak is a small one.\n"
MARKUP = "<img src=x onerror=window.hacked=1>"
DROP = """([name, text, place]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([text], name));
  const event = new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true });
  document.querySelector(place).dispatchEvent(event);
  return event.defaultPrevented;
}"""

PASTE = """(text) => {
  const clipboardData = new DataTransfer(), box = document.querySelector('#prompt textarea');
  if (text) clipboardData.setData('text/plain', text);
  clipboardData.items.add(new File(['x'], 'image.png', { type: 'image/png' }));
  const event = new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true });
  box.dispatchEvent(event);
  return event.defaultPrevented;
}"""


def file(name: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


@pytest.fixture
def scripted(chat: Chat) -> Chat:
    chat.page.click("#show-options")
    return chat


def add(chat: Chat, *files: FilePayload) -> None:
    """Adds files after all earlier ones, whose errors would be shown beside the outcome of these."""
    expect(chat.page.get_by_role("button", name="Add a document")).to_be_enabled()
    chat.page.set_input_files("#documents input[type=file]", files)


def wait_message(chat: Chat, text: str, *, bad: bool = False) -> None:
    chat.page.locator(f"#documents p{'.bad' if bad else ':not(.bad)'}", has_text=text).wait_for()


def wait_listed(chat: Chat, *names: str) -> None:
    """Waits until these documents are listed, and no others."""
    listed = "names => JSON.stringify([...document.querySelectorAll('#documents li span')].map(s => s.textContent))"
    chat.page.wait_for_function(f"{listed} === JSON.stringify(names)", arg=list(names))


def found(chat: Chat, words: str) -> str:
    """What the tool gives for a search."""
    chat.send(f"/search {words}")
    chat.wait_end()
    assert chat.phase == "complete"
    return chat.part("search").locator("pre").last.text_content() or ""


def test_a_document_is_searched_by_its_visitor_alone_and_removed(scripted: Chat, new_chat: Callable[..., Chat]) -> None:
    add(scripted, file("whales.md", WHALES))
    wait_message(scripted, "whales.md can be searched")
    wait_listed(scripted, "whales.md")
    passage = found(scripted, "narwhalish")
    assert passage == "[1] whales.md, Whales\nThe narwhalish is the shyest of all."
    assert "the tool search found" in (scripted.page.text_content("#context .given") or "")
    scripted.open(scripted.page.url)
    wait_listed(scripted, "whales.md")

    stranger = new_chat()
    stranger.page.click("#show-options")
    assert found(stranger, "narwhalish").startswith("Nothing found")
    wait_listed(stranger)

    scripted.page.click("#show-options")
    scripted.page.get_by_role("button", name="Remove whales.md").click()
    wait_message(scripted, "whales.md was removed.")
    wait_listed(scripted)
    assert found(scripted, "narwhalish").startswith("Nothing found")
    assert scripted.errors == stranger.errors == []


def test_several_documents_are_added_at_once_and_one_replaced(scripted: Chat) -> None:
    add(scripted, file("a.txt", b"first apple"), file("b.txt", b"second pear"))
    wait_listed(scripted, "a.txt", "b.txt")
    add(scripted, file("a.txt", b"third quincelet"))
    wait_listed(scripted, "b.txt", "a.txt")
    assert found(scripted, "quincelet").startswith("[1] a.txt")
    assert scripted.errors == []


def test_a_file_that_cannot_be_taken_is_reported_and_the_page_works_on(scripted: Chat) -> None:
    for name, data, received in [
        ("empty.txt", b"", "'empty.txt' has no text that could be searched."),
        ("text.pdf", b"just text", "'text.pdf' cannot be read: its name says PDF, but it holds something else."),
        ("book.txt", b"word " * 1_200_000, "too large: at most 5"),
    ]:
        add(scripted, file(name, data))
        wait_message(scripted, received, bad=True)
        wait_listed(scripted)
    add(scripted, file("whales.md", WHALES))
    wait_message(scripted, "whales.md can be searched")
    wait_listed(scripted, "whales.md")
    assert scripted.page.get_by_role("button", name="Add a document").is_enabled()
    assert "kayak" in found(scripted, "kayak")
    assert scripted.errors == []


def test_a_file_that_is_refused_among_several_is_still_reported_at_the_end(scripted: Chat) -> None:
    add(scripted, file("setup.exe", b"MZ"), file("book.txt", b"word " * 1_200_000), file("whales.md", WHALES))
    wait_listed(scripted, "whales.md")
    received = scripted.page.inner_text("#documents p")
    assert "whales.md can be searched" in received
    assert "'setup.exe' cannot be added: allowed are files that end in .txt, .md, .pdf." in received
    assert "book.txt" in received and "too large" in received
    assert scripted.page.locator("#documents p.bad").count() == 1
    assert scripted.errors == []


def test_an_encoding_is_shown_and_one_that_is_not_clear_is_refused(scripted: Chat) -> None:
    text = "\u706f\u53f0\u5b88\u306f\u9be8\u3092\u898b\u305f\u3002"
    add(scripted, file("whales.txt", text.encode("shift_jis")))
    wait_message(scripted, "whales.txt can be searched (read as cp932)")
    wait_listed(scripted, "whales.txt")
    assert scripted.page.inner_text("#documents li small") == "cp932"
    assert found(scripted, "\u9be8\u3092").endswith(text)
    add(scripted, file("unclear.txt", "Caf\u00e9".encode("gbk")), file("plain.txt", "Caf\u00e9".encode()))
    wait_message(scripted, "Save it as UTF-8 and add it again.", bad=True)
    wait_listed(scripted, "whales.txt", "plain.txt")
    assert scripted.page.locator("#documents li small").count() == 1
    assert scripted.errors == []


def test_a_name_is_never_a_path(scripted: Chat) -> None:
    for name, data in [
        ("../../x.txt", b"some xylophones"),
        ("..\\..\\x.txt", b"some yachts"),
        ("/etc/x.txt", b"some zebras"),
    ]:
        add(scripted, file(name, data))
        wait_message(scripted, f"{name} can be searched")
        wait_listed(scripted, "x.txt")
    assert found(scripted, "xylophones yachts zebras") == "[1] x.txt, section 1\nsome zebras"
    assert scripted.errors == []


def test_a_file_dropped_on_the_page_becomes_a_document(scripted: Chat) -> None:
    scripted.page.click("#show-options")
    assert not scripted.page.is_visible("#documents")
    for number, place in enumerate(["#scroll", "#prompt textarea"]):
        name = f"dropped{number}.txt"
        assert scripted.page.evaluate(DROP, [name, "some xylophones", place]), "the browser does not open it"
        wait_message(scripted, f"{name} can be searched")
    wait_listed(scripted, "dropped0.txt", "dropped1.txt")
    assert scripted.page.input_value("#prompt textarea") == ""
    assert "[2] dropped" in found(scripted, "xylophones")
    assert scripted.errors == []


def test_a_pasted_picture_is_refused_by_its_name_and_one_beside_text_is_ignored(scripted: Chat) -> None:
    assert scripted.page.evaluate(PASTE, ""), "the picture alone is taken note of"
    reason = "'image.png' cannot be added: Scripted tour takes no images. Choose Parrot or Keyed to send one."
    expect(scripted.page.locator("#images p.bad")).to_have_text(reason)
    # spreadsheets and word processors put a picture of the copied text beside it
    assert not scripted.page.evaluate(PASTE, "cell 1\tcell 2"), "the browser pastes the text"
    wait_listed(scripted)
    assert scripted.errors == []


def test_markup_in_a_document_is_text_everywhere(scripted: Chat) -> None:
    name, page = f"{MARKUP}.md", scripted.page
    add(scripted, file(name, f"# {MARKUP}\n\nquaggas </pre></details>{MARKUP}\n".encode()))
    wait_message(scripted, MARKUP)
    wait_listed(scripted, name)
    assert found(scripted, "quaggas").count(MARKUP) == 3
    page.click("#options .close")
    scripted.bar("search").locator("> button").click()
    scripted.bar("search").locator("pre", has_text=f"</details>{MARKUP}").wait_for()
    page.locator("#context .given li", has_text=MARKUP).first.wait_for(state="attached")
    scripted.open(page.url)
    page.wait_for_selector("#chat .parts")
    assert (scripted.part("search").locator("pre").last.text_content() or "").count(MARKUP) == 3
    page.click("#show-options")
    add(scripted, file(f"{MARKUP}.exe", b"no"))
    wait_message(scripted, MARKUP, bad=True)
    page.get_by_role("button", name=f"Remove {name}").click()
    wait_message(scripted, f"{name} was removed.")
    wait_listed(scripted)
    assert page.locator("[onerror]").count() == 0
    assert page.evaluate("window.hacked") is None
    assert scripted.errors == []
