"""Lists of models in the formats of real providers, and in any other."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.model_list_parser import parse_model_list, with_props
from backends.models import KEPT, OFFERED, Model, ModelList, joined, nearest

VLLM = {
    "object": "list",
    "data": [{"id": "Qwen/Qwen3-4B", "object": "model", "owned_by": "vllm", "max_model_len": 40960}],
}
OPENROUTER = {
    "data": [
        {
            "id": "some/thinker",
            "name": "Some: Thinker",
            "context_length": 131072,
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "top_provider": {"context_length": 65536, "max_completion_tokens": 16384},
            "supported_parameters": ["max_tokens", "reasoning", "tools"],
        },
        {
            "id": "some/painter",
            "context_length": 4096,
            "architecture": {"input_modalities": ["text"], "output_modalities": ["image"]},
            "supported_parameters": ["temperature"],
        },
    ]
}
LLAMA_SERVER = {
    "models": [{"name": "some.gguf", "model": "some.gguf", "capabilities": ["completion", "multimodal"]}],
    "object": "list",
    "data": [{"id": "some.gguf", "object": "model", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192}}],
}
OLLAMA = {"object": "list", "data": [{"id": "qwen3:latest", "object": "model", "owned_by": "library"}]}
LM_STUDIO = {
    "data": [
        {"id": "seer", "type": "vlm", "max_context_length": 131072, "loaded_context_length": 4096},
        {"id": "nomic", "type": "embeddings", "max_context_length": 2048},
    ]
}
TOGETHER = [
    {"id": "one/chatty", "type": "chat", "context_length": 32768},
    {"id": "one/drawing", "type": "image", "context_length": 0},
]
MISTRAL = {
    "data": [
        {
            "id": "some-large-2611",
            "aliases": ["some-large-latest"],
            "max_context_length": 262144,
            "capabilities": {"completion_chat": True, "function_calling": True, "vision": True},
        },
        {"id": "some-ocr", "capabilities": {"completion_chat": False, "vision": True}},
    ]
}
GROQ = {"data": [{"id": "fast", "active": True, "context_window": 131072, "max_completion_tokens": 32768}]}
HF_ROUTER = {
    "data": [
        {
            "id": "an/oss",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "providers": [
                {"provider": "novita", "status": "live", "context_length": 131072, "supports_tools": True},
                {"provider": "Nscale", "status": "live", "context_length": 32768, "supports_tools": False},
                {"provider": "gone", "status": "error", "context_length": 1024},
                {"provider": "silent", "status": "live"},
            ],
        }
    ]
}
GEMINI = {
    "models": [
        {
            "name": "models/family-3.8-quick",
            "inputTokenLimit": 1048576,
            "outputTokenLimit": 65536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
            "thinking": True,
        },
        {"name": "models/family-vectors", "inputTokenLimit": 2048, "supportedGenerationMethods": ["embedContent"]},
    ],
    "nextPageToken": "more",
}
MOONSHOT = {"data": [{"id": "moon", "context_length": 262144, "supports_image_in": True, "supports_reasoning": False}]}


def read(data: Any, prefix: str = "") -> ModelList:
    return parse_model_list(json.dumps(data).encode(), prefix=prefix)[0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (VLLM, [Model("Qwen/Qwen3-4B", 40960)]),
        (
            OPENROUTER,
            [
                Model("some/thinker", 65536, 16384, True, True, True, ignores=frozenset({"temperature"})),
                Model("some/painter", 4096, None, False, False, False, chat=False),
            ],
        ),
        (LLAMA_SERVER, [Model("some.gguf", 8192, images=True)]),
        (OLLAMA, [Model("qwen3:latest")]),
        (LM_STUDIO, [Model("seer", 4096, images=True), Model("nomic", 2048, chat=False)]),
        (TOGETHER, [Model("one/chatty", 32768), Model("one/drawing", chat=False)]),
        (
            MISTRAL,
            [
                Model("some-large-2611", 262144, images=True, tools=True, aliases=("some-large-latest",)),
                Model("some-ocr", images=True, chat=False),
            ],
        ),
        (GROQ, [Model("fast", 131072, 32768)]),
        (
            HF_ROUTER,
            [Model("an/oss", 32768, images=False, tools=True, contexts=(("novita", 131072), ("nscale", 32768)))],
        ),
        (MOONSHOT, [Model("moon", 262144, thinking=False, images=True)]),
    ],
    ids=[
        "vllm",
        "openrouter",
        "llama-server",
        "ollama",
        "lm-studio",
        "together",
        "mistral",
        "groq",
        "hf-router",
        "moonshot",
    ],
)
def test_a_providers_list_is_parsed(data: Any, expected: list[Model]) -> None:
    found = read(data)
    assert list(found.models) == expected
    assert found.offered == tuple(sorted((m for m in expected if m.chat), key=lambda m: m.name.casefold()))


def test_a_page_of_geminis_list_is_parsed() -> None:
    found, token = parse_model_list(json.dumps(GEMINI).encode(), prefix="models/")
    assert token == "more"
    assert found.models == (Model("family-3.8-quick", 1048576, 65536, True), Model("family-vectors", 2048, chat=False))


@pytest.mark.parametrize(
    ("listed", "name", "known"),
    [
        (OLLAMA, "qwen3", True),
        (OLLAMA, "qwen3:latest", True),
        (OLLAMA, "QWEN3", True),
        (OLLAMA, "qwen3:4b", False),
        ({"data": [{"id": "qwen3:4b"}]}, "qwen3", False),
        ({"data": [{"id": "an/oss"}]}, "an/oss:fastest", True),
        ({"data": [{"id": "an/oss:free"}]}, "an/oss", False),
        (MISTRAL, "some-large-latest", True),
        (LLAMA_SERVER, "any name", True),
        ({"data": [{"id": "openai/*"}]}, "openai/any", True),
        ({"data": [{"id": "openai/*"}]}, "other/any", False),
        ({"models": [{"name": "models/a"}]}, "a", True),
        ({"data": [{"id": "a"}]}, "models/a", True),
    ],
)
def test_a_name_is_found_as_its_provider_would(listed: Any, name: str, known: bool) -> None:
    found = read(listed)
    assert (found.find(name) is not None) == known
    assert bool(found.problem(name)) != known
    assert not known or getattr(found.find(name), "name", None) == name


def test_the_context_of_a_router_is_that_of_the_named_provider_or_of_all() -> None:
    found = read(HF_ROUTER)
    sizes = {name: model.context for name in ("an/oss", "an/oss:novita", "an/oss:nscale", "an/oss:fastest")
             if (model := found.find(name))}  # fmt: skip
    assert sizes == {"an/oss": 32768, "an/oss:novita": 131072, "an/oss:nscale": 32768, "an/oss:fastest": 32768}


def test_a_llama_servers_properties_take_precedence_over_its_list() -> None:
    props = {"default_generation_settings": {"n_ctx": 2048}, "modalities": {"vision": False}}
    (model,) = with_props(read(LLAMA_SERVER), json.dumps(props).encode()).models
    assert (model.context, model.images) == (2048, False)
    for odd in (b"", b"[]", b'{"default_generation_settings": 5}', b"[" * 100_000):
        assert with_props(read(LLAMA_SERVER), odd) == read(LLAMA_SERVER)


@pytest.mark.parametrize(
    ("wanted", "listed", "first"),
    [
        (
            "family-2.5-flash",
            [
                "family-2.5-pro",
                "family-3.1-pro",
                "family-3.5-flash-lite",
                "family-3.8-flash",
                "vectors-001",
                "other-3-27b",
            ],
            ["family-3.8-flash", "family-3.5-flash-lite"],
        ),
        ("some-5-min", ["some-5", "some-5-mini", "o3"], ["some-5-mini"]),
        ("qwen3:4b", ["llama3:8b", "qwen3:8b", "mistral"], ["qwen3:8b"]),
    ],
)
def test_the_nearest_names_come_first(wanted: str, listed: list[str], first: list[str]) -> None:
    assert nearest(wanted, map(Model, listed))[: len(first)] == first


def test_a_missing_model_is_named_with_the_nearest_and_chat_models_first() -> None:
    models = [Model("a-3-embedding", chat=False), *(Model(f"z{n}") for n in range(9)), Model("a-4-flash")]
    said = ModelList(tuple(models)).problem("a-3-flash")
    assert said == "its server has no model 'a-3-flash'; it has a-4-flash, z3, z0, z1, z2 …"
    assert ModelList(tuple(models[:2])).problem("a").endswith("it has z0, a-3-embedding")


@pytest.mark.parametrize(
    "name", ["nomic-embed-text:v1.5", "text-embedding-3", "x-rerank-2", "omni-moderation", "a-tts"]
)
def test_a_name_can_say_that_a_model_does_not_chat(name: str) -> None:
    assert read({"data": [{"id": name}, {"id": "attsila"}]}).offered == (Model("attsila"),)


@pytest.mark.parametrize(
    "data",
    [{}, [], None, 5, "text", {"data": None}, {"data": {}}, {"data": ["a"]}, {"data": [None, 5, {}, {"id": 5}]}]
    + [{"data": [{"id": name}]} for name in ("", " a", "a\n", "x" * 201, "\ud800")],
)
def test_an_invalid_list_lacks_no_model(data: Any) -> None:
    found = read(data)
    assert (found.models, found.problem("any"), found.offered) == ((), "", ())


def test_a_list_is_bounded_and_then_lacks_no_model() -> None:
    long = read({"data": [{"id": f"m{n}"} for n in range(KEPT + 5)]})
    assert (len(long.models), len(long.offered), long.problem("other")) == (KEPT, OFFERED, "")
    pages = joined([read({"data": [{"id": f"{p}-{n}"} for n in range(600)]}) for p in range(2)], complete=True)
    assert (len(pages.models), pages.problem("other")) == (KEPT, "")
    whole = read({"data": [{"id": "a"}]})
    assert joined([whole], complete=False).problem("other") == ""
    assert joined([whole], complete=True).problem("other")


SIZES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12))
ANY = st.recursive(
    SIZES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = st.sampled_from(
    [
        "id",
        "name",
        "model",
        "key",
        "type",
        "context_length",
        "max_model_len",
        "meta",
        "providers",
        "capabilities",
        "architecture",
        "aliases",
        "owned_by",
        "supported_parameters",
        "supportedGenerationMethods",
        "thinking",
        "top_provider",
        "inputTokenLimit",
        "outputTokenLimit",
    ]
)
ENTRIES = st.lists(
    st.dictionaries(FIELDS, ANY | st.just("a") | st.just({"n_ctx": 1e300}), max_size=8) | ANY, max_size=6
)


@given(st.one_of(ANY, ENTRIES, st.dictionaries(st.sampled_from(["data", "models", "nextPageToken"]), ENTRIES | ANY)))
def test_any_json_is_parsed_without_an_exception(data: Any) -> None:
    found, token = parse_model_list(json.dumps(data).encode(), prefix="models/")
    assert isinstance(token, str)
    for model in found.models:
        assert model.name and model.name.isprintable() and len(model.name) <= 200
        assert model.context is None or 256 <= model.context < 10**9
        assert found.find(model.name) and not found.problem(model.name)
        assert {type(flag) for flag in (model.thinking, model.images, model.tools)} <= {bool, type(None)}
    assert {model.name for model in found.offered} <= {model.name for model in found.models}
    problem = found.problem("surely none of them")
    assert not problem or "surely none of them" in problem


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_without_an_exception(text: bytes) -> None:
    parse_model_list(text)
    with_props(read(LLAMA_SERVER), text)


def test_deeply_nested_json_is_an_empty_list() -> None:
    assert parse_model_list(b'{"data": ' + b"[" * 200_000)[0] == ModelList()
