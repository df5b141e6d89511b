"""What the page does when a visitor chooses a backend, sets its options or brings a key."""

from types import SimpleNamespace
from typing import Any

import pytest

from agent.tools import Toolbox
from agent.turns import TurnRequest, Turns
from backends import OPTION_NAMES, Backends, Health, Key
from components.handlers import Handlers
from components.hf_login import HubLogin
from hosting.identity import COOKIE, Identity
from memory.messages import TurnOptions
from settings import BackendSettings, ToolSettings
from tests.conftest import until
from tests.pages import PARAMETERS, Data, Page, cookie, fields

pytest_plugins = ["tests.pages"]


async def test_new_page_has_the_configured_options(page: Page, handlers: Handlers) -> None:
    updates = await page.load()
    assert len(updates) == 24
    assert [told["name"] for told in updates[11]] == ["Script", "Slow script", "Small script"]
    shown = fields(updates)
    assert [shown[name]["value"] for name in OPTION_NAMES] == [handlers.turns.settings.system_prompt, None, None]
    assert not any(shown[name]["interactive"] for name in OPTION_NAMES), "the script takes none"
    assert (shown["key_row"]["visible"], shown["forget_key"]["visible"]) == (False, False)


async def test_conversation_restores_its_options(page: Page, handlers: Handlers) -> None:
    page.options = ("Be a pirate.", 0.3, 20, [], *PARAMETERS)
    await page.send("tour")
    again = Page(handlers, page.request.cookies[COOKIE])
    shown = fields(await again.load(conversation=str(page.state.conversation_id)))
    assert tuple(shown[name]["value"] for name in OPTION_NAMES) == page.options[:3]


async def test_disabled_tools_stay_disabled(page: Page, handlers: Handlers) -> None:
    handlers.turns.toolbox = handlers.header._toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
    for chosen, kept in ((["clock"], ("clock",)), ([], ()), (["clock", "calculator"], None)):
        page.options = (None, None, None, chosen, *PARAMETERS)
        await page.send("hello")
        found = await handlers.store.conversation(str(page.state.conversation_id), page.state.visitor)
        assert found.options.tools == kept
        again = Page(handlers, page.request.cookies[COOKIE])
        shown = fields(await again.load(conversation=found.id))
        assert sorted(shown["tools"]["value"]) == sorted(chosen)


async def test_removed_tool_does_not_stop_a_conversation(page: Page, handlers: Handlers) -> None:
    handlers.turns.toolbox = handlers.header._toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock", "count"]))
    page.options = (None, None, None, ["clock", "count"], *PARAMETERS)
    await page.send("hello")
    handlers.turns.toolbox = handlers.header._toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
    this = str(page.state.conversation_id)
    shown = fields(await page.load(conversation=this))
    assert shown["tools"]["value"] == ["clock"]
    run = await handlers.turns.start(TurnRequest("hello", page.state.visitor, this))
    await until(lambda: run.ended)
    assert run.state.phase == "complete"


async def test_invalid_options_warn_and_send_nothing(page: Page) -> None:
    page.options = (None, 9.0, None, [], *PARAMETERS)
    with pytest.warns(UserWarning, match="Not sent. The temperature can be 0 to 2"):
        await page.begin("tour")
    assert (page.state.run_id, page.prompt) == (None, "tour")


async def test_retry_and_edit_use_the_current_options(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    this = str(page.state.conversation_id)
    for on, data in ((handlers.on_retry, Data(1)), (handlers.on_edit, Data(0, "two"))):
        page.options = (f"Be {data.value or 'brief'}.", 0.1, 9, [], *PARAMETERS)
        again: Any = on(page.state, page.request, data, "Script", "tokens", *page.options)  # type: ignore[arg-type]
        page.takes(await again)
        await page.follow()
        assert (await handlers.store.conversation(this, page.state.visitor)).options == TurnOptions(*page.options[:3])


SECRET = "sk-of-a-visitor"


@pytest.fixture
def keyed(turns: Turns, identity: Identity) -> Page:
    """A page with a backend that takes a key; `says` sets what its provider answers when it is asked about one."""
    entry = BackendSettings(name="Keyed", kind="openai", model="m", base_url="http://127.0.0.1:1", key="HF_TOKEN")
    turns.backends = Backends([*turns.settings.backends, entry])
    made = Page(Handlers(turns, identity), cookie(identity))
    backend: Any = turns.backends.get("Keyed")
    backend.build = lambda key: None
    says(made, Health("ready"))
    return made


def says(page: Page, health: Health) -> None:
    async def probe(key: Key | None) -> Health:
        return health

    backend: Any = page.handlers.backends.get("Keyed")
    backend.probe = probe


def held(page: Page) -> str | None:
    key = page.handlers.backends.keys.get(page.handlers._visitor(page.request), "Keyed")
    return None if key is None else key.reveal()


async def test_working_key_is_saved_and_never_shown(keyed: Page, capsys: pytest.CaptureFixture[str]) -> None:
    before = fields(await keyed.handlers.header.on_choose("Keyed", keyed.request))
    assert (before["key_row"]["visible"], before["forget_key"]["visible"]) == (True, False)
    updates = await keyed.handlers.header.on_key(f" {SECRET} ", "Keyed", keyed.request)
    assert held(keyed) == SECRET
    assert "Keyed is ready with your key" in capsys.readouterr().out
    assert SECRET not in str(updates)
    assert ("Keyed", "Keyed") in updates[0]["choices"]
    assert updates[1][-1]["key"] == "yours"
    shown = fields(updates)
    assert shown["forget_key"]["visible"] is True
    assert not [name for name in ("key", "system_prompt") if "value" in shown[name]], "what was written stays"


async def test_rejected_key_is_not_saved(keyed: Page) -> None:
    says(keyed, Health("key_refused", "it refused your key"))
    with pytest.warns(UserWarning, match="Keyed refused this key"):
        updates = await keyed.handlers.header.on_key(SECRET, "Keyed", keyed.request)
    assert held(keyed) is None
    assert ("Keyed · key missing", "Keyed") in updates[0]["choices"]
    assert fields(updates)["forget_key"]["visible"] is False


async def test_sign_out_removes_the_token_after_a_rejected_key_too(keyed: Page) -> None:
    signing, visitor = HubLogin(keyed.handlers.backends), keyed.handlers._visitor(keyed.request)
    session: dict[str, Any] = {"oauth_info": {"access_token": "hf_token_of_zoe"}}
    opened: Any = SimpleNamespace(request=SimpleNamespace(scope={"session": session}))
    signing.look(opened, visitor)
    says(keyed, Health("key_refused", "it refused your key"))
    with pytest.warns(UserWarning, match="Keyed refused this key"):
        await keyed.handlers.header.on_key(SECRET, "Keyed", keyed.request)
    assert held(keyed) == "hf_token_of_zoe"
    session.clear()
    signing.look(opened, visitor)
    assert held(keyed) is None


async def test_key_is_saved_if_the_provider_is_unreachable(keyed: Page) -> None:
    says(keyed, Health("unreachable", "it cannot be reached: is there a network?"))
    with pytest.warns(UserWarning, match=r"kept, but Keyed is not ready: .*is there a network\."):
        updates = await keyed.handlers.header.on_key(SECRET, "Keyed", keyed.request)
    assert held(keyed) == SECRET
    assert ("Keyed · unreachable", "Keyed") in updates[0]["choices"]


@pytest.mark.parametrize(
    ("text", "backend", "told"),
    [
        ("", "Keyed", "no key"),
        (None, "Keyed", "no key"),
        (f"{SECRET} {SECRET}", "Keyed", "one word"),
        (SECRET, "Script", "takes no key"),
        (SECRET, "Nobody", "no backend"),
    ],
)
async def test_invalid_key_warns_without_repeating_it(keyed: Page, text: Any, backend: str, told: str) -> None:
    with pytest.warns(UserWarning, match=told) as warned:
        updates = await keyed.handlers.header.on_key(text, backend, keyed.request)
    assert len(updates) == 10
    assert held(keyed) is None
    assert not [one for one in warned if SECRET in str(one.message)]


async def test_key_without_a_cookie_is_not_saved(keyed: Page) -> None:
    stranger = Page(keyed.handlers, None)
    with pytest.warns(UserWarning, match="cookies"):
        await keyed.handlers.header.on_key(SECRET, "Keyed", stranger.request)
    assert held(stranger) is None


async def test_forgetting_a_key_forgets_only_the_visitors_own(keyed: Page, identity: Identity) -> None:
    other = Page(keyed.handlers, cookie(identity))
    for page in (keyed, other):
        await page.handlers.header.on_key(SECRET, "Keyed", page.request)
    updates = await keyed.handlers.header.on_forget_key("Keyed", keyed.request)
    assert (held(keyed), held(other)) == (None, SECRET)
    assert updates[1][-1]["key"] == "missing"
    assert fields(updates)["forget_key"]["visible"] is False
    assert (await other.handlers.header.on_backends_changed(other.request))[1][-1]["key"] == "yours"


async def test_changed_backends_are_rendered(page: Page, handlers: Handlers) -> None:
    handlers.backends.get("Slow script").ttft_s = 1.26
    choices, listed, model = await handlers.header.on_backends_changed(page.request)
    assert [name for _, name in choices["choices"]] == ["Script", "Slow script", "Small script"]
    assert "value" not in choices, "the choice stays"
    assert listed[1]["ttft_s"] == 1.26
    assert (model["visible"], "value" in model) == (False, False)


async def test_parameters_are_saved_if_they_differ_from_the_settings(page: Page, handlers: Handlers) -> None:
    page.options = (None, None, None, [], 2, 2000, None, 3)
    await page.send("one", memory="window")
    this = str(page.state.conversation_id)
    assert (await handlers.store.conversation(this, page.state.visitor)).options == TurnOptions(window_turns=2)
    loaded = await page.load(conversation=this)
    assert [update.get("value") for update in loaded[-4:]] == [2, 2000, 200, 3]
    assert [update["visible"] for update in loaded[-4:]] == [True, False, False, False]
    page.options = (None, None, None, [], 0, 2000, 200, 3)
    with pytest.warns(UserWarning, match="turns that are kept whole can be 1 to 1,000"):
        await page.begin("two", memory="window")
