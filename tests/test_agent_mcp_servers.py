"""The servers of the settings: their health, and what is offered of the tools that they list."""

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agent.mcp.faults import McpError
from agent.mcp.schemas import MOST_TOOLS
from agent.mcp.servers import Server, Servers
from settings import McpSettings, SettingsError, load_settings
from tests.calls import begun, ended, of
from tests.conftest import until
from tests.mcp_turns import TESTS, Connect, bad, entry, server_processes

pytest_plugins = ["tests.mcp_turns"]


async def looked_at(connect: Connect, habit: str, **more: Any) -> Server:
    turns = await connect(entry(command=bad(habit), **more))
    return turns.toolbox.servers.servers[0]


@pytest.mark.parametrize(
    ("habit", "reason"),
    [
        ("exits", "its process has ended."),
        ("list", "its answer is not as the protocol says (at tools, 1, inputSchema, type)."),
        ("rubbish", "it writes lines to its output that are no messages of MCP."),
    ],
)
async def test_failed_server_says_why(connect: Connect, habit: str, reason: str) -> None:
    server = await looked_at(connect, habit)
    assert (server.state in ("failed", "restarting"), server.reason, server.tools) == (True, reason, [])
    await until(lambda: not server_processes(), 30)


async def test_server_that_never_answers_fails(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    import agent.mcp.connection as connection

    monkeypatch.setattr(connection, "_OPEN_S", 2.0)
    server = await looked_at(connect, "silent")
    assert server.reason == "it was not ready within 2 s."
    await until(lambda: not server_processes(), 30)


async def test_missing_program_and_unreachable_address(connect: Connect) -> None:
    turns = await connect(entry("a", ["no-such-program-1"]), entry("b", url="http://127.0.0.1:9/mcp"))
    reasons = [server.reason for server in turns.toolbox.servers.servers]
    assert reasons == [
        "there is no program 'no-such-program-1' on this machine: install it, or change `command`.",
        "it cannot be reached.",
    ]
    assert turns.toolbox.names == ["calculator"]


async def test_failed_server_is_tried_again(connect: Connect, tmp_path: Path) -> None:
    script = tmp_path / "later.py"
    script.write_text("import sys; sys.exit(1)")
    turns = await connect(entry(command=["python", str(script)]))
    server = turns.toolbox.servers.servers[0]
    assert server.state in ("failed", "restarting")
    script.write_text((TESTS / "bad_mcp_server.py").read_text().replace("sys.argv[1]", "'none'"))
    await until(lambda: server.state == "ready", 60)
    assert turns.toolbox.names == ["calculator", "echo"]


async def test_five_thousand_tools_are_cut(connect: Connect) -> None:
    server = await looked_at(connect, "many")
    assert len(server.tools) == MOST_TOOLS
    assert server.refused == ["'tool100' and those after it: only 100 tools of a server are offered."]
    chosen = await looked_at(connect, "many", tools=["tool4999", "tool1"])
    assert [tool.name for tool in chosen.tools] == ["tool1", "tool4999"]


async def test_odd_and_equal_names(connect: Connect) -> None:
    turns = await connect(entry("one", bad("names")), entry("two", bad("none")), entry("drei", bad("none")))
    names = turns.toolbox.names
    assert names == ["calculator", "same", "Gr__e__Welt_1", "x" * 64, "one_calculator", "two_echo", "drei_echo"]
    assert turns.toolbox.servers.servers[0].refused == [
        "'same': another tool of the server has the same name.",
        "'☃☃': its name has no letters or digits.",
    ]


async def test_unsound_schemas_are_refused_with_a_sentence(connect: Connect) -> None:
    server = await looked_at(connect, "schemas")
    assert [tool.name for tool in server.tools] == ["good", "bare", "words"]
    assert server.tools[0].schema["properties"] == {"a": {"type": "number"}}
    assert server.tools[1].schema == {"type": "object", "properties": {}, "required": []}
    assert server.refused == [
        "'self': its schema refers to itself, which models cannot be given.",
        "'root': its schema refers to itself, which models cannot be given.",
        "'away': its schema refers to 'https://example.org/schema', which is outside of it.",
        "'lost': its schema refers to '#/$defs/none', which it does not have.",
        "'deep': its schema has more than 20 levels.",
        "'huge': its schema is longer than 20,000 characters.",
        "'bomb': its schema is longer than 20,000 characters with its references replaced.",
        "'lies': its schema requires arguments that it does not describe.",
    ]


async def test_tools_that_run_only_as_tasks_are_refused(connect: Connect) -> None:
    server = await looked_at(connect, "tasks")
    assert [tool.name for tool in server.tools] == ["echo"]
    assert server.refused == ["'research': it runs only as a task, which is not supported here."]


async def test_arguments_may_have_any_name(connect: Connect) -> None:
    turns = await connect(entry(command=bad("schemas"), approval="never"))
    run = await begun(turns, '/words {"config": "a", "self": "b"}')
    (end,) = of(await ended(run, 60), "tool_end")
    assert end["output"] == '{"config": "a", "self": "b"}'


async def test_result_that_is_not_as_the_protocol_says(connect: Connect) -> None:
    turns = await connect(entry(command=bad("wrong"), approval="never"))
    (end,) = of(await ended(await begun(turns, "/echo a"), 60), "tool_end")
    assert end["error"].startswith("box: its answer is not as the protocol says (at content, 0")


async def test_errors_of_a_server_neither_block_it_nor_show_its_variables(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    token = {"MY_TOKEN": SecretStr("of-mine-alone")}
    turns = await connect(entry(command=bad("stderr"), env=["MY_TOKEN"]), variables=token)
    assert turns.toolbox.servers.servers[0].state == "ready"
    await connect(entry(command=bad("exits")))
    assert "I have no disk" in caplog.text
    assert "of-mine-alone" not in caplog.text


async def test_lines_that_are_no_messages_are_skipped(connect: Connect) -> None:
    assert (await looked_at(connect, "chatter")).state == "ready"


async def test_programs_run_on_a_space_only_if_the_entry_says_so() -> None:
    for allowed in (False, True):
        servers = Servers([entry(command=["no-such-program-1"], on_space=allowed)], on_space=True)
        with pytest.raises(McpError, match="there is no program" if allowed else "on_space = true"):
            async with servers.connect(servers.servers[0]):
                pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an entry has either a `command` or a `url`"),
        ('url = "http://user:pw@host/"', "not a valid address"),
        ('url = "http://h/"\ncommand = ["x"]', "either a `command` or a `url`"),
        ('url = "http://h/"\nheaders = { Authorization = "Bearer of-mine" }', "the name of an environment variable"),
        ('command = ["x"]\nenv = ["TOKEN=of-mine"]', "never their values"),
        ('command = ["x"]\nenv = ["ABSENT_TOKEN"]', "the variable ABSENT_TOKEN is not set"),
        ('command = ["x"]\napproval = "sometimes"', "'always', 'destructive' or 'never'"),
        ('command = ["x"]\ncommnd = 1', "did you mean 'command'"),
    ],
)
def test_wrong_entries_stop_the_start(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "glassbox.toml"
    file.write_text(f'[[mcp]]\nname = "files"\n{text}\n')
    with pytest.raises(SettingsError) as error:
        load_settings({"config": str(file)}, {})
    assert message in str(error.value)
    assert "of-mine" not in str(error.value) and "pw" not in str(error.value)


def test_two_servers_need_two_names() -> None:
    with pytest.raises(ValueError, match="used twice"):
        from settings.mcp import check_servers

        check_servers([McpSettings(name="a", command=["x"]), McpSettings(name="a", command=["y"])])
