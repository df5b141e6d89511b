"""Keys are never printed, and a visitor's key is theirs for a limited time."""

import copy
import io
import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from backends import Backends
from backends.keys import Key, VisitorKeys, redact_keys
from logs import log_formatter
from runs.errors import ChatError
from settings import BackendSettings

SECRET = "sk-of-the-tests-0123456789"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keys(clock: Clock, most: int = 100) -> VisitorKeys:
    return VisitorKeys(absent_s=600, idle_s=3600, most=most, clock=clock)


def held(kept: VisitorKeys, visitor: str | None = "anna", backend: str = "A") -> str | None:
    key = kept.get(visitor, backend)
    return None if key is None else key.reveal()


def test_a_key_is_in_no_text() -> None:
    key = Key(SECRET, from_visitor=True)
    shown = [repr(key), str(key), f"{key}", f"{key!r:>40}", str([key]), str({"key": key}), f"{vars(Key)}"]
    assert not [text for text in shown if SECRET in text]
    assert (key.reveal(), key.from_visitor) == (SECRET, True)
    assert not hasattr(key, "__dict__")


def test_a_key_cannot_be_stored_or_copied() -> None:
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            take(Key(SECRET))


def test_a_key_equals_only_itself() -> None:
    assert Key(SECRET) != Key(SECRET)
    assert len({Key(SECRET), Key(SECRET)}) == 2


KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=20)


@given(st.lists(KEYS, min_size=1, max_size=4), st.lists(st.text(max_size=10), min_size=1, max_size=5))
def test_a_redacted_text_contains_no_key(secrets: list[str], parts: list[str]) -> None:
    made = [Key(secret) for secret in secrets]
    text = "".join(f"{part} {key.reveal()}" for part in parts for key in made)
    assert not [key for key in made if key.reveal() in redact_keys(text).replace("[key]", " ")]


def test_a_key_that_starts_with_another_is_redacted_completely() -> None:
    longer = [Key(SECRET + "+" * more) for more in range(20)]
    for key in longer:
        assert redact_keys(f"({key.reveal()})") == "([key])"


def test_short_secrets_are_not_redacted() -> None:
    short = Key("key")
    assert redact_keys("a key is a key") == "a key is a key"
    assert short.reveal() == "key"


def test_a_log_contains_no_key_even_in_a_traceback() -> None:
    key, written = Key(SECRET), io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(log_formatter("text"))
    log = logging.Logger("of the tests")
    log.addHandler(handler)
    try:
        try:
            raise ValueError(f"Incorrect API key provided: {key.reveal()}.")
        except ValueError as e:
            raise RuntimeError(f"refused {key.reveal()}") from e
    except RuntimeError:
        log.exception("the request with %s failed", key.reveal())
    received = written.getvalue()
    assert SECRET not in received
    assert received.startswith("ERROR of the tests: the request with [key] failed\n")
    assert "ValueError: Incorrect API key provided: [key]." in received
    assert "RuntimeError: refused [key]" in received


def test_a_visitors_key_belongs_to_one_backend(clock: Clock) -> None:
    kept = keys(clock)
    kept.put("anna", "A", f"  {SECRET}\n")
    kept.put("ben", "A", "another-key")
    assert held(kept) == SECRET
    assert held(kept, "ben") == "another-key"
    assert [held(kept, "anna", "B"), held(kept, "cleo"), held(kept, None)] == [None, None, None]
    kept.forget("anna", "A")
    assert (held(kept), held(kept, "ben")) == (None, "another-key")
    kept.forget("anna", "A")


def test_another_key_replaces_the_first(clock: Clock) -> None:
    kept = keys(clock)
    kept.put("anna", "A", "the-first-key")
    first = kept.get("anna", "A")
    kept.put("anna", "A", "the-first-key")
    assert kept.get("anna", "A") not in (None, first), "what was known of the first does not hold for it"


@pytest.mark.parametrize(
    "text",
    ["", "  \n", "x" * 1001, "two words", "tab\tbed", "li\nne", "nul\x00", "kéy", "\u202ekey", "del\x7f", "\ud83dx"],
    ids=ascii,
)
def test_an_invalid_key_is_rejected_without_repeating_it(clock: Clock, text: str) -> None:
    kept = keys(clock)
    with pytest.raises(ChatError) as refused:
        kept.put("anna", "A", text)
    assert refused.value.code == "invalid_request"
    assert not text.strip() or text not in refused.value.message
    assert held(kept) is None


@given(st.text(min_size=1, max_size=1100))
def test_every_accepted_key_is_a_valid_header(text: str) -> None:
    kept = VisitorKeys()
    try:
        kept.put("anna", "A", text)
    except ChatError as e:
        assert len(text.strip()) < 4 or text not in e.message
    else:
        taken = held(kept)
        assert taken == text.strip()
        assert taken.isascii()
        assert taken.isprintable()
        assert " " not in taken


def test_without_a_cookie_no_key_is_kept(clock: Clock) -> None:
    kept = keys(clock)
    with pytest.raises(ChatError) as refused:
        kept.put(None, "A", SECRET)
    assert "cookies" in refused.value.message
    assert SECRET not in refused.value.message
    assert held(kept, None) is None
    assert held(kept, "") is None


def test_a_visitors_key_takes_precedence_over_the_operators() -> None:
    entry = BackendSettings(name="A", kind="openai", model="m", key="A_KEY")
    backends = Backends([entry], {"A_KEY": SecretStr("of-the-operator")})
    backend = backends.default
    theirs = backends.bind("A", "anna").key
    assert theirs is backends.bind("A", None).key is backend.key
    assert theirs
    assert not theirs.from_visitor
    backends.keys.put("anna", "A", SECRET)
    own = backends.bind("A", "anna").key
    assert own
    assert (own.reveal(), own.from_visitor) == (SECRET, True)
    assert backends.bind("A", "ben").key is backend.key
    backends.keys.forget("anna", "A")
    assert backends.bind("A", "anna").key is backend.key


def test_keys_are_forgotten_after_the_last_page_has_closed(clock: Clock) -> None:
    kept = keys(clock)
    kept.put("anna", "A", SECRET)
    for _ in range(5):
        clock.now += 599
        kept.mark_present(["anna", "ben"])
        kept.expire()
    clock.now += 599
    kept.expire()
    assert len(kept._keys) == 1
    clock.now += 2
    kept.mark_present(["ben"])
    assert held(kept) is None


def test_a_use_counts_as_presence(clock: Clock) -> None:
    kept = keys(clock)
    kept.put("anna", "A", SECRET)
    kept.put("anna", "B", "another-key")
    for _ in range(5):
        clock.now += 599
        assert held(kept) == SECRET
    assert held(kept, backend="B") == "another-key"
    clock.now += 601
    kept.expire()
    assert not kept._keys and not kept._used and not kept._seen


def test_an_unused_key_is_forgotten_although_a_page_is_open(clock: Clock) -> None:
    kept = keys(clock)
    kept.put("anna", "A", SECRET)
    kept.put("anna", "B", "another-key")
    for step in range(8):
        clock.now += 500
        kept.mark_present(["anna"])
        if step == 4:
            assert held(kept, backend="B") == "another-key"
    assert held(kept) is None
    assert held(kept, backend="B") == "another-key"


def test_the_least_recently_used_of_too_many_keys_are_forgotten(clock: Clock) -> None:
    kept = keys(clock, most=3)
    for visitor in ("anna", "ben", "cleo"):
        clock.now += 0.1
        kept.put(visitor, "A", SECRET)
    clock.now += 0.1
    assert held(kept, "anna") == SECRET
    kept.put("dora", "A", SECRET)
    assert [held(kept, visitor) for visitor in ("anna", "ben", "cleo", "dora")] == [SECRET, None, SECRET, SECRET]


MOVES = st.tuples(
    st.sampled_from(["put", "get", "forget", "see", "wait"]),
    st.sampled_from(["anna", "ben", None]),
    st.sampled_from(["A", "B"]),
)


@given(st.lists(MOVES, max_size=40))
def test_no_visitor_gets_anothers_key_and_no_key_outlives_its_time(
    moves: list[tuple[str, str | None, str]],
) -> None:
    clock = Clock()
    kept = keys(clock, most=2)
    for number, (move, visitor, backend) in enumerate(moves):
        clock.now += 1
        match move:
            case "put" if visitor:
                kept.put(visitor, backend, f"{visitor}-{backend}-{number}")
            case "get":
                key = held(kept, visitor, backend)
                assert key is None or key.startswith(f"{visitor}-{backend}-")
            case "forget":
                kept.forget(visitor, backend)
                assert held(kept, visitor, backend) is None
            case "see":
                kept.mark_present([visitor] if visitor else [])
            case "wait":
                clock.now += 700
                assert not (held(kept, "anna", "A") or held(kept, "ben", "B"))
        assert len(kept._keys) == len(kept._used) <= 2
        assert len(kept._seen) <= 2
