"""LangChain's standard tests, on the scripted model: what every chat model must do, whatever answers.

Skipped, since the script cannot do it or has none of it:

- what needs tool calls (`test_tool_*`, `test_bind_runnables_as_tools`, `test_structured_few_shot_examples`,
  `test_agent_loop`, `test_unicode_tool_call_integration`): the script says which tool is called, not the request;
- `test_structured_output*`, `test_json_mode`: its replies are prose;
- `test_usage_metadata*`: it has no tokens, and makes no figures up;
- `test_*_with_model_override`: there is one script;
- `test_image_*`, `test_pdf_*`, `test_audio_inputs`: it reads text;
- `test_init_from_env`: nothing about it is a matter of the environment; `test_serdes`: nobody stores it;
- `test_stream_time`: it replays recorded HTTP, and here is none.
"""

from collections.abc import Callable
from typing import ClassVar

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from backends.scripted import ScriptedChat
from tests.conftest import FAST


@pytest.fixture
def benchmark() -> Callable[[Callable[[], None]], None]:
    """Runs it once: whether it works is tested here, not how quickly."""
    return lambda work: work()


class TestScriptedClass(ChatModelUnitTests):
    chat_model_class = ScriptedChat


class TestScripted(ChatModelIntegrationTests):
    chat_model_class = ScriptedChat
    chat_model_params: ClassVar = {"speed": FAST}
    has_tool_calling = has_structured_output = False
    returns_usage_metadata = supports_model_override = False
    supports_anthropic_inputs = True
