from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage

from backends.base import ModelOptions
from backends.langchain import LangChainBackend
from runs.errors import ChatError
from settings import BackendSettings
from tests.models import Talker


def backend(path: str, **options: Any) -> LangChainBackend:
    return LangChainBackend(BackendSettings(name="Model", kind="langchain", options=options, **{"class": path}))


async def test_any_chat_model_is_created_by_its_import_path() -> None:
    path = f"{GenericFakeChatModel.__module__}:{GenericFakeChatModel.__name__}"
    made = backend(path, messages=iter([AIMessage("hello there you")]))
    await made.wait_ready()
    model = made.chat_model(ModelOptions(max_tokens=5))
    assert "".join([c.text async for c in model.astream([HumanMessage("hi")])]) == "hello there you"


async def test_a_turns_options_are_set_on_a_copy() -> None:
    made = backend("tests.models:Talker", temperature=0.9)
    await made.wait_ready()
    first, second = (
        made.chat_model(ModelOptions(max_tokens=7)),
        made.chat_model(ModelOptions(max_tokens=8, temperature=0.0)),
    )
    assert isinstance(first, Talker)
    assert isinstance(second, Talker)
    assert (first.max_tokens, first.temperature) == (7, 0.9)
    assert (second.max_tokens, second.temperature) == (8, 0.0)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_package.chat:Model", "no_such_package cannot be imported"),
        ("tests.models:Nobody", "no 'Nobody' in tests.models"),
        ("tests.models:Refuser", "did not accept its options (ValueError)"),
        ("tests.models:Leaver", "did not accept its options (SystemExit)"),
        ("tests.models:NoModel", "is not a LangChain chat model"),
    ],
)
async def test_a_model_that_cannot_be_created_is_unavailable(path: str, reason: str) -> None:
    options = {} if path.endswith("NoModel") else {"api_key": "sk-secret"}
    made = backend(path, **options)
    await made.open()
    assert made.health().state == "loading"
    for _ in range(2):
        with pytest.raises(ChatError) as refused:
            await made.wait_ready()
        assert refused.value.code == "backend_unavailable"
        assert reason in refused.value.message
        assert "secret" not in refused.value.message
    assert made.health().state == "unavailable"
