import socket

import pytest

from hosting.hosts import Hosts, is_cross_origin, machine_names, printable_host, split_host


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("example.org", ("example.org", "")),
        ("Example.ORG.:8080", ("example.org", "8080")),
        ("[::1]:7860", ("::1", "7860")),
        ("[2001:db8::1]", ("2001:db8::1", "")),
        ("127.0.0.1:1", ("127.0.0.1", "1")),
        ("", ("", "")),
        ("a b", ("", "")),
        ("user@example.org", ("", "")),
        ("example.org/x", ("", "")),
        ("example.org:x", ("", "")),
        ("x" * 300, ("", "")),
        ("a\r\nb", ("", "")),
    ],
)
def test_a_host_is_a_name_and_a_port(host: str, expected: tuple[str, str]) -> None:
    assert split_host(host) == expected


def test_printable_host_shows_only_valid_hosts() -> None:
    assert printable_host("Example.org:80") == "example.org:80"
    assert printable_host("<script>") == printable_host("a\nb") == printable_host("") == "(not a host name)"


KNOWN = [
    "localhost",
    "LOCALHOST:7860",
    "app.localhost",
    "127.0.0.1:7860",
    "192.168.1.7",
    "[::1]:7860",
    "[2001:db8::1]",
    "",
]


@pytest.mark.parametrize("host", KNOWN)
def test_addresses_and_localhost_are_known(host: str) -> None:
    assert Hosts().knows(host)


def test_the_machines_own_names_are_known() -> None:
    name = socket.gethostname()
    assert name.lower() in machine_names()
    assert Hosts().knows(name) and Hosts().knows(f"{name.partition('.')[0]}.local:7860")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost", "127.1", "a@localhost", "x y",
     "chat.example.org.evil.example", "sub.chat.example.org", "a.hf.space", "0x7f.1"],
)  # fmt: skip
def test_other_names_are_not_known(host: str) -> None:
    assert not Hosts(["chat.example.org"], ["lan.example"], lambda: "https://abc.gradio.live").knows(host)


def test_allowed_hosts_and_the_share_link_are_known() -> None:
    link = ""
    hosts = Hosts(["chat.example.org"], ["lan.example", None, "[fd00::1]"], lambda: link)
    for host in ("chat.example.org", "CHAT.example.org.:8443", "lan.example:7860"):
        assert hosts.knows(host)
    assert not hosts.knows("abc.gradio.live")
    link = "https://abc.gradio.live"
    assert hosts.knows("abc.gradio.live") and not hosts.knows("xyz.gradio.live")


def test_hosts_of_spaces_are_known_only_on_a_space() -> None:
    assert Hosts(on_space=True).knows("zoe-glassbox.hf.space")
    assert not Hosts(on_space=True).knows("hf.space.evil.example")
    assert not Hosts().knows("zoe-glassbox.hf.space")


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("https://example.org", "example.org", False),
        ("https://example.org", "example.org:443", False),
        ("http://example.org", "example.org:80", False),
        ("https://example.org", "EXAMPLE.org", False),
        ("https://example.org:8443", "example.org:8443", False),
        ("https://example.org:8443", "example.org", True),
        ("https://example.org", "example.org:80", True),
        ("https://example.org", "example.org:7860", True),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443", False),
        ("https://evil.example", "example.org", True),
        ("https://chat.example.org", "127.0.0.1:7860", False),
        ("https://chat.example.org:8443", "app", False),
        ("http://CHAT.example.org", "app", False),
        ("https://chat.example.org.evil.example", "127.0.0.1:7860", True),
        ("null", "null", True),
        ("https://[", "[", True),
        ("", "", False),
    ],
)
def test_origin_is_accepted_if_it_is_the_host_or_allowed(origin: str, host: str, expected: bool) -> None:
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert is_cross_origin(headers, (), Hosts(["chat.example.org"])) is expected
