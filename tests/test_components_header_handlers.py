"""The handlers of the header and the options: a backend, its options, a visitor's key."""

from types import SimpleNamespace
from typing import Any

import pytest

from agent.tools import Toolbox
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import OPTION_NAMES, Backends, Health
from components.handlers import Handlers
from components.hf_login import HubLogin
from components.page import OPENED_OUTPUTS
from hosting.identity import COOKIE, Identity
from memory.messages import Message
from memory.modes import MODES, Candidates, ModeLimits
from memory.options import PARAMETERS as NAMES
from memory.options import TurnOptions
from memory.own_modes import own_mode
from settings import BackendSettings, ToolSettings
from tests.conftest import until
from tests.pages import PARAMETERS, Chosen, Data, Page, cookie

pytest_plugins = ["tests.pages"]


async def test_new_page_has_the_configured_options(page: Page, handlers: Handlers) -> None:
    updates = await page.load()
    assert {"answer", *updates} == set(OPENED_OUTPUTS)
    assert [backend["name"] for backend in updates["about"]] == ["Script", "Slow script", "Small script"]
    assert [updates[name] for name in OPTION_NAMES] == [handlers.turns.settings.system_prompt, None, None, True]
    assert [backend["takes"] for backend in updates["about"]] == [[], [], []], "the script supports none"
    assert (updates["key_row"]["visible"], updates["forget_key"]["visible"]) == (False, False)


async def test_conversation_restores_its_options(page: Page, handlers: Handlers) -> None:
    page.options = ("Be a pirate.", 0.3, 20, False, [], *PARAMETERS, True, {}, False, None)
    await page.send("tour")
    again = Page(handlers, page.request.cookies[COOKIE])
    shown = await again.load(conversation=str(page.state.conversation_id))
    assert tuple(shown[name] for name in OPTION_NAMES) == page.options[:4]


async def test_options_of_an_own_mode_are_saved_and_restored(
    page: Page, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(past: Candidates, limits: ModeLimits, *, quoted: bool = False) -> list[Message]:
        return []

    monkeypatch.setitem(MODES, "mine", own_mode("mine", "Mine: some", choose))
    for field, kept in (({"mine": {"quoted": True}, "tokens": {"x": 1}}, {"quoted": True}), ({}, None)):
        page.options = (None, None, None, True, [], *PARAMETERS, True, field, False, None)
        await page.send("hello", memory="mine")
        found = await handlers.store.conversation(str(page.state.conversation_id), page.state.visitor)
        assert found.options.mode_options == kept
        shown = await Page(handlers, page.request.cookies[COOKIE]).load(conversation=found.id)
        assert (shown["memory"], shown["mode_options"]) == ("mine", {"mine": kept or {}})


async def test_disabled_tools_stay_disabled(page: Page, handlers: Handlers) -> None:
    handlers.turns.toolbox = handlers.header._toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
    for chosen, kept in ((["clock"], ("clock",)), ([], ()), (["clock", "calculator"], None)):
        page.options = (None, None, None, True, chosen, *PARAMETERS, True, {}, False, None)
        await page.send("hello")
        found = await handlers.store.conversation(str(page.state.conversation_id), page.state.visitor)
        assert found.options.tools == kept
        again = Page(handlers, page.request.cookies[COOKIE])
        shown = await again.load(conversation=found.id)
        assert sorted(shown["tools"]) == sorted(chosen)


async def test_removed_tool_does_not_stop_a_conversation(page: Page, handlers: Handlers) -> None:
    handlers.turns.toolbox = handlers.header._toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock", "count"]))
    page.options = (None, None, None, True, ["clock", "count"], *PARAMETERS, True, {}, False, None)
    await page.send("hello")
    handlers.turns.toolbox = handlers.header._toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
    this = str(page.state.conversation_id)
    shown = await page.load(conversation=this)
    assert shown["tools"] == ["clock"]
    run = await handlers.turns.start(TurnRequest("hello", page.state.visitor, this))
    await until(lambda: run.ended)
    assert run.state.phase == "complete"


async def test_invalid_options_warn_and_send_nothing(page: Page) -> None:
    page.options = (None, 9.0, None, True, [], *PARAMETERS, True, {}, False, None)
    with pytest.warns(UserWarning, match="Not sent. The temperature can be 0 to 2"):
        await page.begin("tour")
    assert (page.state.run_id, page.prompt) == (None, "tour")


async def test_retry_and_edit_use_the_current_options(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    this = str(page.state.conversation_id)
    chosen = Chosen({"id": page.state.shown[0].id})
    for on, data, prompt in ((handlers.on_regenerate, chosen, "brief"), (handlers.on_edit, Data(0, "two"), "two")):
        page.options = (f"Be {prompt}.", 0.1, 9, False, [], *PARAMETERS, True, {}, False, None)
        again: Any = on(page.state, page.request, data, "Script", "tokens", *page.options)  # type: ignore[arg-type]
        page.apply(await again)
        await page.follow()
        assert (await handlers.store.conversation(this, page.state.visitor)).options == TurnOptions(
            **dict(zip(OPTION_NAMES, page.options, strict=False))
        )


SECRET = "sk-of-a-visitor"


@pytest.fixture
def keyed(turns: Turns, identity: Identity) -> Page:
    """A page with a backend that takes a key. `set_health` sets its health with a key."""
    entry = BackendSettings(name="Keyed", kind="openai", model="m", base_url="http://127.0.0.1:1", key="HF_TOKEN")
    turns.backends = Backends([*turns.settings.backends, entry])
    made = Page(Handlers(turns, identity), cookie(identity))
    backend: Any = turns.backends.get("Keyed")
    backend.build = lambda: None
    set_health(made, Health("ready"))
    return made


def set_health(page: Page, health: Health) -> None:
    async def probe() -> Health:
        return health

    backend: Any = page.handlers.backends.get("Keyed")
    backend.probe = probe


def held(page: Page) -> str | None:
    key = page.handlers.backends.keys.get(page.visitor, "Keyed")
    return None if key is None else key.reveal()


async def test_working_key_is_saved_and_never_shown(keyed: Page, capsys: pytest.CaptureFixture[str]) -> None:
    before = await keyed.handlers.header.on_choose("Keyed", keyed.request)
    assert (before["key_row"]["visible"], before["forget_key"]["visible"]) == (True, False)
    updates = await keyed.handlers.header.on_key(f" {SECRET} ", "Keyed", keyed.request)
    assert held(keyed) == SECRET
    assert "Keyed is ready with your key" in capsys.readouterr().out
    assert SECRET not in str(updates)
    assert (updates["about"][-1]["state"], updates["about"][-1]["key"]) == ("ready", "yours")
    assert updates["forget_key"]["visible"] is True
    assert "value" not in updates["key"] and "system_prompt" not in updates, "typed text is kept"


async def test_rejected_key_is_not_saved(keyed: Page) -> None:
    set_health(keyed, Health("key_refused", "it refused your key"))
    with pytest.warns(UserWarning, match="Keyed rejected this key"):
        updates = await keyed.handlers.header.on_key(SECRET, "Keyed", keyed.request)
    assert held(keyed) is None
    assert updates["about"][-1]["state"] == "key_missing"
    assert updates["forget_key"]["visible"] is False


async def test_sign_out_removes_the_token_after_a_rejected_key_too(keyed: Page) -> None:
    login, visitor = HubLogin(keyed.handlers.backends), keyed.visitor
    session: dict[str, Any] = {"oauth_info": {"access_token": "hf_token_of_zoe"}}
    opened: Any = SimpleNamespace(request=SimpleNamespace(scope={"session": session}))
    login.sync_keys(opened, visitor)
    set_health(keyed, Health("key_refused", "it refused your key"))
    with pytest.warns(UserWarning, match="Keyed rejected this key"):
        await keyed.handlers.header.on_key(SECRET, "Keyed", keyed.request)
    assert held(keyed) == "hf_token_of_zoe"
    session.clear()
    login.sync_keys(opened, visitor)
    assert held(keyed) is None


async def test_key_is_saved_if_the_provider_is_unreachable(keyed: Page) -> None:
    set_health(keyed, Health("unreachable", "it cannot be reached: is there a network?"))
    with pytest.warns(UserWarning, match=r"saved, but Keyed is not ready: .*is there a network\."):
        updates = await keyed.handlers.header.on_key(SECRET, "Keyed", keyed.request)
    assert held(keyed) == SECRET
    assert updates["about"][-1]["state"] == "unreachable"


@pytest.mark.parametrize(
    ("text", "backend", "warning"),
    [
        ("", "Keyed", "key is empty"),
        (None, "Keyed", "key is empty"),
        (f"{SECRET} {SECRET}", "Keyed", "one word"),
        (SECRET, "Script", "takes no key"),
        (SECRET, "Nobody", "no backend"),
    ],
)
async def test_invalid_key_warns_without_repeating_it(keyed: Page, text: Any, backend: str, warning: str) -> None:
    with pytest.warns(UserWarning, match=warning) as warned:
        updates = await keyed.handlers.header.on_key(text, backend, keyed.request)
    assert updates == {}
    assert held(keyed) is None
    assert not [one for one in warned if SECRET in str(one.message)]


async def test_key_without_a_cookie_is_not_saved(keyed: Page) -> None:
    other = Page(keyed.handlers, None)
    with pytest.warns(UserWarning, match="cookies"):
        await keyed.handlers.header.on_key(SECRET, "Keyed", other.request)
    assert held(other) is None


async def test_forgetting_a_key_forgets_only_the_visitors_own(keyed: Page, identity: Identity) -> None:
    other = Page(keyed.handlers, cookie(identity))
    for page in (keyed, other):
        await page.handlers.header.on_key(SECRET, "Keyed", page.request)
    updates = await keyed.handlers.header.on_forget_key("Keyed", keyed.request)
    assert (held(keyed), held(other)) == (None, SECRET)
    assert updates["about"][-1]["key"] == "missing"
    assert updates["forget_key"]["visible"] is False
    assert (await other.handlers.header.on_backends_changed(other.request))["about"][-1]["key"] == "yours"


async def test_changed_backends_are_rendered(page: Page, handlers: Handlers) -> None:
    handlers.backends.get("Slow script").ttft_s = 1.26
    updates = await handlers.header.on_backends_changed(page.request)
    listed, model = updates["about"], updates["model"]
    assert updates.keys() == {"about", "model"}, "the choice of a backend stays"
    assert [one["name"] for one in listed] == ["Script", "Slow script", "Small script"]
    assert listed[1]["ttft_s"] == 1.26
    assert (model["visible"], "value" in model) == (False, False)


async def test_parameters_are_saved_if_they_differ_from_the_settings(page: Page, handlers: Handlers) -> None:
    page.options = (None, None, None, True, [], 2, 2000, None, 3, True, {}, False, None)
    await page.send("one", memory="window")
    this = str(page.state.conversation_id)
    assert (await handlers.store.conversation(this, page.state.visitor)).options == TurnOptions(window_turns=2)
    loaded = await page.load(conversation=this)
    parameters = [loaded[name] for name in NAMES]
    assert [update.get("value") for update in parameters] == [2, 2000, 200, 3]
    assert [update["visible"] for update in parameters] == [True, False, False, False]
    page.options = (None, None, None, True, [], 0, 2000, 200, 3, True, {}, False, None)
    with pytest.warns(UserWarning, match="turns that are kept whole can be 1 to 1,000"):
        await page.begin("two", memory="window")
