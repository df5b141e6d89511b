"""The page's callbacks without a browser: called and iterated as Gradio would, with a stand-in for its request."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr
import pytest

from agent.tools import Toolbox
from agent.turns import Ask, Turns
from backends import OPTIONS, Backends, Health, Key
from components.handlers import Handlers
from components.render import render_turns
from components.session import DRAWN, PageState
from memory.messages import Tuning
from settings import BackendSettings, ToolSettings
from tests.conftest import until
from tests.grammar import check_run
from transports.identity import COOKIE, Identity

PARAMETERS = (4, 2000, 200, 3)
"""What the fields of the memory modes' parameters hold."""


@dataclass
class Request:
    """What the handlers read of a gr.Request."""

    cookies: dict[str, str] = field(default_factory=dict)
    client: Any = None
    query_params: dict[str, str] = field(default_factory=dict)


@dataclass
class Data:
    """What the handlers read of the Chatbot's event data."""

    index: int
    value: Any = ""


@dataclass
class Chosen:
    """What the handlers read of a gr.EventData."""

    _data: Any


class Page:
    """One open page: calls the listeners in their order and keeps what they give to the components."""

    def __init__(self, handlers: Handlers, cookie: str | None) -> None:
        self.handlers = handlers
        self.request: Any = Request({COOKIE: cookie} if cookie else {})
        self.state = PageState()
        self.chat: list[Any] = []
        self.prompt: Any = ""
        self.tuning: tuple[Any, ...] = (None, None, None, [], *PARAMETERS)
        """What the fields of the options hold: system prompt, temperature, longest reply, tools, parameters."""
        self.lives: list[str] = []
        self.panels: list[dict[str, Any]] = []

    @property
    def empty(self) -> PageState:
        return PageState(self.handlers._visitor(self.request))

    @property
    def texts(self) -> list[str]:
        """The drawn messages, without the parts that stand before a reply."""
        drawn = ([part["text"] for part in m["content"]] for m in self.chat)
        return [next(text for text in texts if not text.startswith("<div class='parts'>")) for texts in drawn]

    def takes(self, updates: tuple[Any, ...]) -> None:
        self.state, self.prompt, self.chat = updates[:3]

    async def load(self, **query: str) -> tuple[Any, ...]:
        self.request.query_params = query
        updates = await self.handlers.opening.on_load(self.request)
        self.state, self.chat = updates[:2]
        return updates

    async def open(self, conversation_id: Any) -> tuple[Any, ...]:
        updates = await self.handlers.opening.on_open(self.state, self.request, Chosen({"id": conversation_id}))  # type: ignore[arg-type]
        self.state, self.chat = updates[:2]
        return updates

    async def begin(self, prompt: str, backend: str = "Script", memory: str = "tokens") -> None:
        send = self.handlers.on_send(prompt, self.state, self.request, backend, memory, *self.tuning)
        self.takes(await send)

    async def follow(self) -> None:
        self.lives, self.panels = [], []
        async with aclosing(self.handlers.tail.follow(self.state, self.request)) as updates:  # type: ignore[type-var]
            async for live, panel in updates:
                if isinstance(panel, dict) and "phase" in panel:
                    self.lives.append(live[0]["content"][0]["text"] if live else "")
                    self.panels.append(panel)
        updates = await self.handlers.tail.finish(self.state, self.request)
        if updates[0] != gr.skip():
            self.state = updates[0]
        if self.lives:
            self.chat = updates[1]

    async def send(self, prompt: str, **more: str) -> None:
        await self.begin(prompt, **more)
        await self.follow()


@pytest.fixture
def identity() -> Identity:
    return Identity("of the tests")


@pytest.fixture
def handlers(turns: Turns, identity: Identity) -> Handlers:
    return Handlers(turns, identity)


def cookie(identity: Identity) -> str:
    return identity.new_cookie().split(";")[0].removeprefix(f"{COOKIE}=")


@pytest.fixture
def page(handlers: Handlers, identity: Identity) -> Page:
    return Page(handlers, cookie(identity))


async def test_a_turn_streams_into_the_live_reply_and_is_handed_over(page: Page) -> None:
    await page.begin("tour", backend="Slow script")
    assert (page.texts, page.prompt) == (["tour"], "")
    run = page.handlers.runs.get(str(page.state.run_id), page.handlers._visitor(page.request))
    await page.follow()
    assert len(page.lives) > 5
    assert all(later.startswith(earlier) for earlier, later in zip(page.lives, page.lives[1:], strict=False))
    assert page.texts[1] == page.lives[-1]
    assert page.panels[-1]["phase"] == "complete"
    assert any(panel["phase"] == "thinking" and panel["thoughts"] for panel in page.panels)
    assert sum("context" in panel for panel in page.panels) <= 2
    assert page.state.run_id is None
    check_run(run)


async def test_a_blank_prompt_does_nothing(page: Page) -> None:
    await page.begin("  \n ")
    assert (page.state, page.chat) == (page.empty, [])
    await page.follow()
    assert page.panels == []


async def test_what_cannot_be_sent_is_told_and_the_prompt_keeps_its_text(page: Page) -> None:
    with pytest.warns(UserWarning, match="1,000,000"):
        await page.begin("x" * 1_000_000)
    assert page.prompt == gr.skip()
    assert page.state.run_id is None


async def test_stop_ends_the_run_and_the_reply_says_so(page: Page) -> None:
    await page.begin("endless", backend="Slow script")
    following = asyncio.create_task(page.follow())
    await until(lambda: page.lives and page.lives[-1])
    await page.handlers.on_stop(page.state, page.request)
    await asyncio.wait_for(following, 10)
    assert page.panels[-1]["phase"] == "stopped"
    assert page.chat[-1]["content"][-1]["text"] == "*Stopped by you*"


async def test_a_reload_in_mid_reply_finds_it_and_follows_it_to_the_end(page: Page, handlers: Handlers) -> None:
    await page.begin("tour", backend="Slow script", memory="window")
    leaving = asyncio.create_task(page.follow())
    await until(lambda: page.lives and page.lives[-1])
    leaving.cancel()
    await asyncio.wait({leaving})
    again = Page(handlers, page.request.cookies[COOKIE])
    updates = await again.load(conversation=str(page.state.conversation_id))
    assert again.state.run_id == page.state.run_id
    assert again.texts == ["tour"]
    assert updates[9]["value"] == "Slow script"
    assert updates[10] == "window"
    await again.follow()
    assert again.panels[-1]["phase"] == "complete"
    assert again.texts[1] == again.lives[-1]


async def test_a_reload_after_the_end_shows_the_last_state(page: Page, handlers: Handlers) -> None:
    await page.send("tour")
    again = Page(handlers, page.request.cookies[COOKIE])
    updates = await again.load(conversation=str(page.state.conversation_id))
    assert again.chat == page.chat
    assert updates[3]["phase"] == "complete"
    assert updates[3]["context"]["messages"]
    assert again.state.run_id is None


async def test_a_new_page_is_empty(page: Page) -> None:
    updates = await page.load()
    assert (page.state, page.chat, updates[3]) == (page.empty, [], None)
    assert updates[9]["value"] == "Script"
    assert updates[10] == "tokens"


def fields(updates: tuple[Any, ...]) -> dict[str, Any]:
    """The options' updates by their place in `OptionsPane.drawn`; the parameters come after them where a page loads."""
    loaded = isinstance(updates[0], PageState)
    names = (*OPTIONS, "tools", "key_row", "key", "forget_key")
    return dict(zip(names, updates[-11:-4] if loaded else updates[-7:], strict=True))


async def test_a_new_page_has_the_configured_options(page: Page, handlers: Handlers) -> None:
    updates = await page.load()
    assert len(updates) == 23
    assert [told["name"] for told in updates[11]] == ["Script", "Slow script", "Small script"]
    shown = fields(updates)
    assert [shown[name]["value"] for name in OPTIONS] == [handlers.turns.settings.system_prompt, None, None]
    assert not any(shown[name]["interactive"] for name in OPTIONS), "the script takes none"
    assert (shown["key_row"]["visible"], shown["forget_key"]["visible"]) == (False, False)


async def test_a_conversation_brings_its_options_back(page: Page, handlers: Handlers) -> None:
    page.tuning = ("Be a pirate.", 0.3, 20, [], *PARAMETERS)
    await page.send("tour")
    again = Page(handlers, page.request.cookies[COOKIE])
    shown = fields(await again.load(conversation=str(page.state.conversation_id)))
    assert tuple(shown[name]["value"] for name in OPTIONS) == page.tuning[:3]


async def test_tools_that_are_turned_off_stay_off(page: Page, handlers: Handlers) -> None:
    handlers.turns.toolbox = handlers.choosing._toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
    for chosen, kept in ((["clock"], ("clock",)), ([], ()), (["clock", "calculator"], None)):
        page.tuning = (None, None, None, chosen, *PARAMETERS)
        await page.send("hello")
        found = await handlers.store.conversation(str(page.state.conversation_id), page.state.visitor)
        assert found.tuning.tools == kept
        again = Page(handlers, page.request.cookies[COOKIE])
        shown = fields(await again.load(conversation=found.id))
        assert sorted(shown["tools"]["value"]) == sorted(chosen)


async def test_a_tool_that_the_settings_have_no_more_stops_no_conversation(page: Page, handlers: Handlers) -> None:
    handlers.turns.toolbox = handlers.choosing._toolbox = Toolbox(
        ToolSettings(enabled=["calculator", "clock", "count"])
    )
    page.tuning = (None, None, None, ["clock", "count"], *PARAMETERS)
    await page.send("hello")
    handlers.turns.toolbox = handlers.choosing._toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
    this = str(page.state.conversation_id)
    shown = fields(await page.load(conversation=this))
    assert shown["tools"]["value"] == ["clock"]
    run = await handlers.turns.start(Ask("hello", page.state.visitor, this))
    await until(lambda: run.ended)
    assert run.state.phase == "complete"


async def test_options_that_cannot_be_are_told_and_nothing_is_sent(page: Page) -> None:
    page.tuning = (None, 9.0, None, [], *PARAMETERS)
    with pytest.warns(UserWarning, match="Not sent. The temperature can be 0 to 2"):
        await page.begin("tour")
    assert (page.state.run_id, page.prompt) == (None, gr.skip())


async def test_retry_and_edit_take_the_options_of_the_moment(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    this = str(page.state.conversation_id)
    for on, data in ((handlers.on_retry, Data(1)), (handlers.on_edit, Data(0, "two"))):
        page.tuning = (f"Be {data.value or 'brief'}.", 0.1, 9, [], *PARAMETERS)
        again: Any = on(page.state, page.request, data, "Script", "tokens", *page.tuning)  # type: ignore[arg-type]
        page.takes(await again)
        await page.follow()
        assert (await handlers.store.conversation(this, page.state.visitor)).tuning == Tuning(*page.tuning[:3])


SECRET = "sk-of-a-visitor"


@pytest.fixture
def keyed(turns: Turns, identity: Identity) -> Page:
    """A page with a backend that takes a key; `says` sets what its provider answers when it is asked about one."""
    entry = BackendSettings(name="Keyed", kind="openai", model="m", base_url="http://127.0.0.1:1", key="A_KEY")
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


async def test_a_key_that_works_is_taken_and_never_shown(keyed: Page, capsys: pytest.CaptureFixture[str]) -> None:
    before = fields(await keyed.handlers.choosing.on_choose("Keyed", keyed.request))
    assert (before["key_row"]["visible"], before["forget_key"]["visible"]) == (True, False)
    updates = await keyed.handlers.choosing.on_key(f" {SECRET} ", "Keyed", keyed.request)
    assert held(keyed) == SECRET
    assert "Keyed is ready with your key" in capsys.readouterr().out
    assert SECRET not in str(updates)
    assert ("Keyed", "Keyed") in updates[0]["choices"]
    assert updates[1][-1]["key"] == "yours"
    shown = fields(updates)
    assert (shown["key"]["value"], shown["forget_key"]["visible"]) == ("", True)
    assert "value" not in shown["system_prompt"], "what was written stays"


async def test_a_key_that_is_refused_is_not_kept(keyed: Page) -> None:
    says(keyed, Health("key_refused", "it refused your key"))
    with pytest.warns(UserWarning, match="Keyed refused this key"):
        updates = await keyed.handlers.choosing.on_key(SECRET, "Keyed", keyed.request)
    assert held(keyed) is None
    assert ("Keyed · key missing", "Keyed") in updates[0]["choices"]
    assert fields(updates)["forget_key"]["visible"] is False


async def test_a_key_that_could_not_be_tried_is_kept(keyed: Page) -> None:
    says(keyed, Health("unreachable", "it cannot be reached: is there a network?"))
    with pytest.warns(UserWarning, match=r"kept, but Keyed is not ready: .*is there a network\."):
        updates = await keyed.handlers.choosing.on_key(SECRET, "Keyed", keyed.request)
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
async def test_what_is_no_key_for_it_is_told_and_not_repeated(keyed: Page, text: Any, backend: str, told: str) -> None:
    with pytest.warns(UserWarning, match=told) as warned:
        updates = await keyed.handlers.choosing.on_key(text, backend, keyed.request)
    assert len(updates) == 9
    assert held(keyed) is None
    assert not [one for one in warned if SECRET in str(one.message)]


async def test_without_a_cookie_no_key_is_taken(keyed: Page) -> None:
    stranger = Page(keyed.handlers, None)
    with pytest.warns(UserWarning, match="cookies"):
        await keyed.handlers.choosing.on_key(SECRET, "Keyed", stranger.request)
    assert held(stranger) is None


async def test_a_key_is_forgotten_at_a_click_and_only_ones_own(keyed: Page, identity: Identity) -> None:
    other = Page(keyed.handlers, cookie(identity))
    for page in (keyed, other):
        await page.handlers.choosing.on_key(SECRET, "Keyed", page.request)
    updates = await keyed.handlers.choosing.on_forget_key("Keyed", keyed.request)
    assert (held(keyed), held(other)) == (None, SECRET)
    assert updates[1][-1]["key"] == "missing"
    assert fields(updates)["forget_key"]["visible"] is False
    assert (await other.handlers.choosing.on_news(other.request))[1][-1]["key"] == "yours"


async def test_what_is_new_of_a_backend_is_drawn(page: Page, handlers: Handlers) -> None:
    handlers.backends.get("Slow script").ttft_s = 1.26
    choices, listed = await handlers.choosing.on_news(page.request)
    assert [name for _, name in choices["choices"]] == ["Script", "Slow script", "Small script"]
    assert "value" not in choices, "the choice stays"
    assert listed[1]["ttft_s"] == 1.26


async def test_another_visitors_ids_open_nothing(page: Page, handlers: Handlers, identity: Identity) -> None:
    await page.begin("endless", backend="Slow script")
    for stranger in (Page(handlers, cookie(identity)), Page(handlers, None)):
        with pytest.warns(UserWarning, match="not yours"):
            await stranger.load(conversation=str(page.state.conversation_id))
        assert (stranger.state, stranger.chat) == (stranger.empty, [])
        # Gradio keeps a page's state under an id that any client may name, so a stranger can bring one
        taken = stranger.state = replace(page.state, drawn=list(page.state.drawn))
        await stranger.follow()
        assert stranger.panels == []
        await stranger.begin("  ")
        assert (stranger.state, stranger.chat) == (stranger.empty, [])
        await handlers.on_stop(taken, stranger.request)
        with pytest.warns(UserWarning, match="nothing to take back"):
            await handlers.on_undo(taken, stranger.request, Data(0))  # type: ignore[arg-type]
        assert (await handlers.on_earlier(taken, stranger.request))[0] == stranger.empty
        await handlers.on_clear(taken, stranger.request)
    assert not [run for run in [handlers.runs.find(page.state.run_id)] if run is None or run.ended]
    assert await handlers.store.size(str(page.state.conversation_id)) == 2


async def test_retry_edit_and_undo_do_what_they_say(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    await page.send("faults")
    retry: Any = Data(3)
    page.takes(await handlers.on_retry(page.state, page.request, retry, "Script", "tokens", *page.tuning))
    await page.follow()
    assert [page.texts[0], page.texts[2]] == ["one", "faults"]
    assert len(page.chat) == 4
    edit: Any = Data(0, [{"type": "text", "text": "tour <\u2060b>"}])
    page.takes(await handlers.on_edit(page.state, page.request, edit, "Script", "tokens", *page.tuning))
    await page.follow()
    assert page.state.drawn[0].text == "tour <b>"
    assert len(page.chat) == 2
    page.takes(await handlers.on_undo(page.state, page.request, Data(0)))  # type: ignore[arg-type]
    assert (page.prompt, page.chat) == ("tour <b>", [])
    assert await handlers.store.size(str(page.state.conversation_id)) == 0
    assert len(await handlers.store.tree(str(page.state.conversation_id))) == 7


@dataclass
class Named:
    """What the handlers read of an event of `web/turns.js`."""

    _data: Any


async def test_branches_are_walked_and_any_reply_can_be_asked_for_again(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    await page.send("two")
    first = page.state.drawn[0]
    again: Any = Named({"id": first.id})
    page.takes(await handlers.on_again(page.state, page.request, again, "Script", "tokens", *page.tuning))
    await page.follow()
    assert [m.text for m in page.state.drawn if m.role == "user"] == ["one"]
    turn = render_turns(page.state)[1]
    assert (len(turn["versions"]), turn["asked"], turn["run"]) == (2, first.id, page.state.drawn[1].run_id)
    updates = await handlers.on_walk(page.state, page.request, Named({"id": turn["versions"][0]}))  # type: ignore[arg-type]
    page.takes(updates)
    assert [m.text for m in page.state.drawn if m.role == "user"] == ["one", "two"]
    assert updates[4]["run"] == page.state.drawn[-1].run_id
    for odd in ({"id": "no such"}, {"id": 7}, None):
        with pytest.warns(UserWarning, match="no longer there"):
            await handlers.on_walk(page.state, page.request, Named(odd))  # type: ignore[arg-type]
    await page.begin("tour", backend="Slow script")
    with pytest.warns(UserWarning, match="still being written"):
        await handlers.on_walk(page.state, page.request, Named({"id": turn["versions"][1]}))  # type: ignore[arg-type]


async def test_parameters_are_kept_where_they_differ_from_the_settings(page: Page, handlers: Handlers) -> None:
    page.tuning = (None, None, None, [], 2, 2000, None, 3)
    await page.send("one", memory="window")
    this = str(page.state.conversation_id)
    assert (await handlers.store.conversation(this, page.state.visitor)).tuning == Tuning(window_turns=2)
    loaded = await page.load(conversation=this)
    assert [update.get("value") for update in loaded[-4:]] == [2, 2000, 200, 3]
    assert [update["visible"] for update in loaded[-4:]] == [True, False, False, False]
    page.tuning = (None, None, None, [], 0, 2000, 200, 3)
    with pytest.warns(UserWarning, match="turns that are kept whole can be 1 to 1,000"):
        await page.begin("two", memory="window")


async def test_clear_deletes_the_conversation_and_ends_its_run(page: Page, handlers: Handlers) -> None:
    await page.begin("endless", backend="Slow script")
    run = handlers.runs.find(page.state.run_id)
    conversation_id = str(page.state.conversation_id)
    page.takes(await handlers.on_clear(page.state, page.request))
    assert run
    assert run.ended
    assert (page.state, page.chat) == (page.empty, [])
    assert await handlers.store.size(conversation_id) == 0


async def test_clear_during_a_run_lets_nothing_come_back(page: Page, handlers: Handlers) -> None:
    await page.begin("endless", backend="Slow script")
    page_at_begin, yields = page.state, []
    async for update in handlers.tail.follow(page_at_begin, page.request):
        yields.append(update)
        if len(yields) == 3:
            page.takes(await handlers.on_clear(page_at_begin, page.request))
            cleared_at = len(yields)
    assert all(update == (gr.skip(), gr.skip()) for update in yields[cleared_at:])
    state, chat, live, *_ = await handlers.tail.finish(page_at_begin, page.request)
    assert (state, chat, live) == (page.empty, [], [])


async def test_a_conversation_deleted_elsewhere_is_left_with_the_prompt_kept(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    await handlers.turns.delete(str(page.state.conversation_id))
    with pytest.warns(UserWarning, match="start a new one"):
        await page.begin("two")
    assert (page.state, page.chat, page.prompt) == (page.empty, [], gr.skip())
    await page.send("two")
    assert page.texts[0] == "two"


async def test_a_long_conversation_draws_its_end_and_more_on_demand(page: Page, handlers: Handlers) -> None:
    given: Any = [("user" if n % 2 == 0 else "assistant", str(n)) for n in range(100)]
    conversation_id = await handlers.store.create(None, given)
    await page.load(conversation=conversation_id)
    assert page.texts == [str(n) for n in range(100 - DRAWN, 100)]
    assert page.state.earlier == 100 - DRAWN
    updates = await handlers.on_earlier(page.state, page.request)
    assert [m["content"][0]["text"] for m in updates[1]] == [str(n) for n in range(100 - 2 * DRAWN, 100)]
    assert updates[0].earlier == 100 - 2 * DRAWN


async def test_another_conversation_is_opened_in_place_and_a_new_one(page: Page) -> None:
    await page.send("one", memory="window")
    one = page.state.conversation_id
    await page.open(None)
    assert (page.state, page.texts) == (page.empty, [])
    await page.send("two")
    updates = await page.open(one)
    assert (page.state.conversation_id, page.texts[0], updates[10]) == (one, "one", "window")
    await page.send("three")
    assert (page.state.conversation_id, page.texts[2]) == (one, "three")


async def test_what_is_not_the_visitors_own_is_not_opened(page: Page, handlers: Handlers, identity: Identity) -> None:
    await page.send("secret")
    other = Page(handlers, cookie(identity))
    await other.send("mine")
    for given in (page.state.conversation_id, "no such", "\x00", ""):
        with pytest.warns(UserWarning, match="no such conversation"):
            await other.open(given)
        assert (other.state, other.chat) == (other.empty, [])


@pytest.mark.parametrize("earlier", [False, True])
async def test_a_run_goes_on_without_the_page_that_left_it_and_is_found_again(
    page: Page, handlers: Handlers, earlier: bool
) -> None:
    given: Any = [("user" if n % 2 == 0 else "assistant", str(n)) for n in range(60)]
    long = await handlers.store.create(handlers._visitor(page.request), given)
    await page.load(conversation=long)
    await page.begin("endless", backend="Slow script")
    run = handlers.runs.get(str(page.state.run_id), page.state.visitor)
    following = asyncio.create_task(page.follow())
    await until(lambda: page.lives and page.lives[-1])
    if earlier:
        page.state = (await handlers.on_earlier(page.state, page.request))[0]
    await page.open(None)
    await asyncio.wait_for(following, 10)
    assert (page.state, run.ended) == (page.empty, False)
    await page.open(long)
    assert page.state.run_id == run.id
    await handlers.on_stop(page.state, page.request)
    await asyncio.wait_for(page.follow(), 10)
    assert page.panels[-1]["phase"] == "stopped"


async def test_two_pages_of_one_visitor_see_the_same_run(page: Page, handlers: Handlers) -> None:
    await page.begin("tour", backend="Slow script")
    other = Page(handlers, page.request.cookies[COOKIE])
    await other.load(conversation=str(page.state.conversation_id))
    await asyncio.gather(page.follow(), other.follow())
    assert page.texts == other.texts
    with pytest.warns(UserWarning, match="Not sent"):
        await handlers.turns.start(Ask("endless", handlers._visitor(page.request), page.state.conversation_id))
        await page.begin("again")


async def test_a_late_hand_over_touches_no_run_that_has_begun_meanwhile(page: Page, handlers: Handlers) -> None:
    untouched = (gr.skip(),) * 7
    assert await handlers.tail.finish(page.empty, page.request) == untouched
    await page.begin("endless", backend="Slow script")
    assert await handlers.tail.finish(page.state, page.request) == untouched
    await handlers.on_stop(page.state, page.request)
    await page.follow()
    assert page.state.run_id is None
