"""The page behind a real nginx: over TLS and below a prefix as documented, and with settings that do not fit."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from bench.ports import free_port
from tests.app_process import RunningApp
from tests.browser.conftest import Chat, Contexts
from tests.nginx import HOST, documented, documented_nginx, make_certificate, nginx

CONFIG = '[[backends]]\nname = "Script"\nkind = "scripted"\noptions = { speed = 4 }\n'
PLAIN = (
    "server {{ listen 127.0.0.1:{port}; location {location} {{ proxy_pass http://127.0.0.1:{app}{path}; {more} }} }}"
)


def scripted_app(folder: Path, settings: str = "", **environment: str) -> AbstractContextManager[RunningApp]:
    return RunningApp(folder, f"{settings}\n{CONFIG}", **environment)


@contextmanager
def opened(contexts: Contexts) -> Iterator[tuple[BrowserContext, Page, list[str]]]:
    """A page, and what failed on it: addresses outside of the app, and scripts."""
    with contexts.lend(ignore_https_errors=True) as context:
        page, failed = context.new_page(), list[str]()
        page.on("response", lambda got: failed.append(f"{got.status} {got.url}") if got.status >= 400 else None)
        page.on("pageerror", lambda error: failed.append(str(error)))
        yield context, page, failed


def test_the_page_works_over_tls_and_below_a_prefix(contexts: Contexts, tmp_path: Path) -> None:
    certificate, port = make_certificate(tmp_path), free_port()
    with scripted_app(tmp_path, documented("toml")) as app:
        with nginx(tmp_path / "nginx", documented_nginx(app.port, port, certificate)):
            with opened(contexts) as (context, page, failed):
                home = f"https://{HOST}:{port}/demo/"
                chat = Chat(page, home.rstrip("/"))
                assert page.url == home, "the final slash is added"
                chat.send("tour")
                page.wait_for_function("document.querySelector('#live-reply')?.textContent.length > 20")
                assert page.locator("#stop").is_visible(), "text is shown while the reply streams"
                assert page.url.startswith(f"{home}?conversation=")
                chat.wait_end()
                reply = chat.reply()
                page.reload()
                expect(page.locator("#chat")).to_contain_text(reply.strip()[:40])
                (cookie,) = [c for c in context.cookies() if c["name"] == "glassbox_visitor"]
                assert (cookie["path"], cookie["secure"]) == ("/demo", True)
                assert page.locator("a.brand").evaluate("link => link.href") == home
                page.goto(f"{home}example")
                page.fill("#prompt", "hello")
                page.press("#prompt", "Enter")
                page.wait_for_selector("#phase[data-phase=complete]")
                page.locator("input[value=ws]").check(force=True)
                page.fill("#prompt", "hello")
                page.press("#prompt", "Enter")
                expect(page.locator("#line")).to_contain_text("WebSocket")
                page.wait_for_selector("#send:visible")
                expect(page.locator(".user")).to_have_count(2)
                expect(page.locator(".bad")).to_have_count(0)
                page.goto(f"{home}docs")
                page.get_by_role("button", name="GET /healthz").first.click()
                page.get_by_role("button", name="Try it out").click()
                with page.expect_response(f"{home}healthz"):
                    page.get_by_role("button", name="Execute").click()
                assert failed == []


@pytest.mark.parametrize(
    ("settings", "location", "path", "more", "address"),
    [
        (f'allowed_hosts = ["{HOST}"]', "/", "", "", "/"),
        (f'allowed_hosts = ["{HOST}"]', "/", "", "proxy_set_header Host $host;", "/"),
        (f'allowed_hosts = ["{HOST}"]', "/demo/", "/", "", "/demo/"),
        (f'allowed_hosts = ["{HOST}"]\nroot_path = "/demo"', "/demo", "", "proxy_set_header Host $host;", "/demo"),
    ],
)
def test_the_page_works_with_allowed_hosts_alone(
    contexts: Contexts, tmp_path: Path, settings: str, location: str, path: str, more: str, address: str
) -> None:
    port = free_port()
    with scripted_app(tmp_path, settings) as app:
        with nginx(tmp_path / "nginx", PLAIN.format(port=port, location=location, app=app.port, path=path, more=more)):
            with opened(contexts) as (_, page, failed):
                chat = Chat(page, f"http://{HOST}:{port}{address}")
                chat.send("hello")
                chat.wait_end()
                assert chat.reply() and failed == []
                assert page.url.startswith(f"http://{HOST}:{port}{address.rstrip('/')}/?conversation=")


def test_a_login_works_below_a_prefix(contexts: Contexts, tmp_path: Path) -> None:
    certificate, port = make_certificate(tmp_path), free_port()
    with scripted_app(tmp_path, documented("toml"), GLASSBOX_AUTH="zoe:of the test") as app:
        with nginx(tmp_path / "nginx", documented_nginx(app.port, port, certificate)):
            with opened(contexts) as (_, page, _):
                page.goto(f"https://{HOST}:{port}/demo/")
                page.get_by_label("username").fill("zoe")
                page.get_by_label("password").fill("of the test")
                page.get_by_role("button", name="Login").click()
                page.wait_for_selector("#prompt textarea", state="visible")


def test_the_page_says_why_its_requests_are_refused(contexts: Contexts, tmp_path: Path) -> None:
    port = free_port()
    with scripted_app(tmp_path) as app:
        with nginx(tmp_path / "nginx", PLAIN.format(port=port, location="/", app=app.port, path="", more="")):
            with opened(contexts) as (_, page, _):
                page.goto(f"http://{HOST}:{port}/")
                reason = page.get_by_text(f"add {HOST} to allowed_hosts").first
                expect(reason).to_be_visible()
                expect(page.get_by_text("An error occurred")).to_have_count(0)
        log = app.output()
        assert "WARNING hosting.error_responses: refused (origin)" in log and f"add {HOST} to allowed_hosts" in log


def test_an_unknown_host_is_shown_a_page_that_says_why(contexts: Contexts, tmp_path: Path) -> None:
    with scripted_app(tmp_path) as app, opened(contexts) as (_, page, _):
        page.goto(f"http://{HOST}:{app.port}/")
        expect(page.get_by_role("alert")).to_contain_text(f"{HOST}:{app.port} is not a known name of this server")
        assert "refused (host)" in app.output()
