"""Browsers: origins, cookies, and security headers."""

import re
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.live_app import client_of, events_of, live_api, live_app, refused, socket_of

FRIEND, FOE = "https://friend.example", "https://evil.example"


async def test_responses_have_security_headers(tmp_path: Path) -> None:
    with live_app(tmp_path) as app:
        async with client_of(app) as client:
            seen = set()
            for path in ("/", "/compare", "/example", "/docs", "/?conversation=%22%3E%3Cscript%3E"):
                page = await client.get(path)
                policy = page.headers["content-security-policy"]
                nonce = re.search(r"'nonce-([\w-]+)'", policy)
                assert nonce and nonce[1] not in seen, "a nonce is used once"
                seen.add(nonce[1])
                tags = re.findall(r"<script[^>]*>", page.text)
                assert tags and all(f'nonce="{nonce[1]}"' in tag for tag in tags)
                assert "unsafe-inline" not in policy.split("style-src")[0] and "frame-ancestors 'self'" in policy
                assert "<script>" not in page.text.split("?conversation=")[-1][:50]
            for path in ("/", "/backends", "/client.js", "/nowhere", "/gradio_api/info", "/theme.css"):
                headers = (await client.get(path)).headers
                assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
                assert headers["x-frame-options"] == "SAMEORIGIN"


async def test_cookie_is_httponly_and_samesite(tmp_path: Path) -> None:
    with live_api(tmp_path / "home", trusted_proxies=["127.0.0.1"]) as app:
        async with client_of(app, cookie=False) as client:
            plain = (await client.get("/example")).headers["set-cookie"]
            assert "HttpOnly" in plain and "SameSite=Lax" in plain and "Secure" not in plain
            client.cookies.clear()
            over_tls = (await client.get("/example", headers={"X-Forwarded-Proto": "https"})).headers["set-cookie"]
            assert "Secure" in over_tls and "SameSite=Lax" in over_tls
            client.cookies.clear()
            for path in ("/backends", "/conversations", "/gradio_api/info"):
                assert "set-cookie" not in (await client.get(path)).headers
    with live_api(tmp_path / "space", on_space=True) as app:
        async with client_of(app, cookie=False) as client:
            page = await client.get("/example")
            assert "SameSite=None; Secure; Partitioned" in page.headers["set-cookie"]
            assert "https://huggingface.co" in page.headers["content-security-policy"]
            assert "x-frame-options" not in page.headers


BLOG = "https://blog.example"
FRAMED = {"X-Forwarded-Proto": "https", "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate"}
FRAMED |= {"Sec-Fetch-Site": "cross-site"}


async def test_only_named_origins_may_frame_the_slim_page_and_nothing_else(tmp_path: Path) -> None:
    page = {"embed_origins": [BLOG, "http://localhost:8000"]}
    with live_app(tmp_path, page=page, trusted_proxies=["127.0.0.1"]) as app:
        async with client_of(app, cookie=False) as client:
            framed = await client.get("/?embed=1&q=x", headers=FRAMED)
            policy = framed.headers["content-security-policy"]
            assert policy.endswith(f"frame-ancestors 'self' {BLOG} http://localhost:8000")
            assert "x-frame-options" not in framed.headers
            assert framed.headers["set-cookie"].endswith("; SameSite=None; Secure; Partitioned")
            assert "HttpOnly" in framed.headers["set-cookie"]
            for path in (
                "/",
                "/?embed=0",
                "/?embed=1&embed=2",
                "/?embed=",
                "/?q=embed%3D1",
                "/compare?embed=1",
                "/example?embed=1",
                "/docs?embed=1",
            ):
                client.cookies.clear()
                other = await client.get(path, headers={**FRAMED, "Sec-Fetch-Site": "none"})
                assert other.headers["content-security-policy"].endswith("frame-ancestors 'self'"), path
                assert other.headers["x-frame-options"] == "SAMEORIGIN"
                assert "SameSite=None" not in other.headers.get("set-cookie", ""), path
            client.cookies.clear()
            alone = await client.get("/?embed=1", headers={**FRAMED, "Sec-Fetch-Dest": "document"})
            assert alone.headers["set-cookie"].endswith("; SameSite=Lax; Secure"), "it is in no frame"
            client.cookies.clear()
            plain = await client.get("/?embed=1", headers={**FRAMED, "X-Forwarded-Proto": "http"})
            assert "set-cookie" not in plain.headers, "http has no cookie for frames"
            assert (await client.get("/")).headers["set-cookie"].endswith("; SameSite=Lax")


async def test_pages_that_may_frame_the_page_cannot_call_it(tmp_path: Path) -> None:
    with live_api(tmp_path, page={"embed_origins": [BLOG]}) as app:
        async with client_of(app) as visitor:
            for headers in (
                {"Origin": BLOG},
                {"Origin": BLOG, "Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "cross-site"},
            ):
                for method, path in (
                    ("POST", "/stream"), ("GET", "/stream?query=x"), ("GET", "/conversations"), ("GET", "/client.js"),
                    ("POST", "/embed.js"), ("GET", "/embed.js/x"), ("POST", "/batch"),
                    ("POST", "/gradio_api/queue/join"),
                ):  # fmt: skip
                    sent = {"json": {"message": "x"}} if method == "POST" else {}
                    answer = await visitor.request(method, path, headers=headers, **sent)
                    assert answer.status_code == 403, (method, path)
                    assert "access-control-allow-origin" not in answer.headers
            with pytest.raises(InvalidStatus) as refusal:
                async with socket_of(app, visitor, headers={"Origin": BLOG}):
                    pass
            assert refusal.value.response.status_code == 403
            script = await visitor.get(
                "/embed.js", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "script"}
            )
            assert script.status_code == 200 and script.headers["content-type"].startswith("text/javascript")
            assert (
                script.headers["cross-origin-resource-policy"] == "cross-origin" and "set-cookie" not in script.headers
            )
            rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
            assert (await visitor.get("/embed.js", headers=rebound)).status_code == 400
            assert (await visitor.get("/?embed=1", headers=rebound)).status_code == 400


async def test_without_origins_the_page_cannot_be_embedded(tmp_path: Path) -> None:
    with live_app(tmp_path) as app:
        async with client_of(app, cookie=False) as client:
            page = await client.get("/?embed=1", headers=FRAMED)
            assert page.headers["content-security-policy"].endswith("frame-ancestors 'self'")
            assert page.headers["x-frame-options"] == "SAMEORIGIN" and "SameSite=Lax" in page.headers["set-cookie"]
            assert "embed_origins" in await refused(await client.get("/embed.js"), 404, "not_found")
            assert (await client.get("/embed.js", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403


async def test_a_space_may_be_embedded_elsewhere_too(tmp_path: Path) -> None:
    with live_app(tmp_path, on_space=True, page={"embed_origins": [BLOG]}) as app:
        async with client_of(app, cookie=False) as client:
            for path, others in (("/", False), ("/?embed=1", True)):
                client.cookies.clear()
                page = await client.get(path)
                policy = page.headers["content-security-policy"]
                assert "frame-ancestors 'self' https://huggingface.co" in policy and (BLOG in policy) is others
                assert "SameSite=None; Secure; Partitioned" in page.headers["set-cookie"]
                assert "x-frame-options" not in page.headers


async def test_only_configured_origins_may_call_and_never_with_cookies(tmp_path: Path) -> None:
    with live_api(tmp_path, allowed_origins=[FRIEND]) as app:
        async with client_of(app) as visitor:
            cookies = dict(visitor.cookies)
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        async with client_of(app, cookie=False) as client:
            allowed = await client.options("/stream", headers={"Origin": FRIEND, **asks})
            assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == FRIEND
            assert "access-control-allow-credentials" not in allowed.headers
            refusal = await client.options("/stream", headers={"Origin": FOE, **asks})
            assert refusal.status_code == 400 and "access-control-allow-origin" not in refusal.headers
            received = await client.get("/backends", headers={"Origin": FRIEND})
            assert received.headers["access-control-allow-origin"] == FRIEND
            events = await events_of(client, "POST", "/stream", json={"message": "hello"}, headers={"Origin": FRIEND})
            assert events[-1]["type"] == "complete"
            for method, path in (("POST", "/stream"), ("GET", "/stream?query=x"), ("GET", "/conversations")):
                sent = {"json": {"message": "x"}} if method == "POST" else {}
                answer = await client.request(method, path, headers={"Origin": FOE}, cookies=cookies, **sent)
                await refused(answer, 403, "authentication")
                assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", [FOE, "null", "http://127.0.0.1:1"])
async def test_page_of_another_site_opens_no_socket(tmp_path: Path, origin: str) -> None:
    with live_api(tmp_path) as app:
        with pytest.raises(InvalidStatus) as refusal:
            async with socket_of(app, headers={"Origin": origin}):
                pass
        assert refusal.value.response.status_code == 403


async def test_a_form_on_another_site_changes_nothing(tmp_path: Path) -> None:
    """A form needs no preflight: it sends text, with the cookie where that is not SameSite."""
    with live_api(tmp_path, on_space=True) as app:
        async with client_of(app) as visitor:
            made = (await visitor.post("/conversations", json={"messages": []})).json()["conversation_id"]
            crossed = {"Origin": FOE, "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
            for method, path in (
                ("POST", "/stream"), ("DELETE", f"/conversations/{made}"), ("POST", "/documents?name=a.txt"),
                ("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/call/chat"), ("POST", "/login"),
            ):  # fmt: skip
                answer = await visitor.request(method, path, content='{"message": "x"}', headers=crossed)
                assert answer.status_code == 403, path
            navigated = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
            assert (await visitor.get("/stream?query=x", headers=navigated)).status_code == 403
            assert (await visitor.get("/docs", headers=navigated)).status_code == 200, "a link may lead there"
            assert (await visitor.get(f"/conversations/{made}")).status_code == 200


async def test_auth_covers_everything_but_the_login(tmp_path: Path) -> None:
    with live_app(tmp_path, auth=("zoe", "secret")) as app:
        async with client_of(app, cookie=False) as client:
            assert (await client.get("/healthz")).status_code == 200
            assert "auth_required" in (await client.get("/")).text
            for path in (
                "/backends", "/limits", "/docs", "/openapi.json", "/client.js", "/example", "/config", "/metrics",
                "/gradio_api/info", "/gradio_api/heartbeat/x", "/gradio_api/queue/data?session_hash=x",
                "/gradio_api/app_id", "/gradio_api/call/chat/x", "/conversations", "/stream?query=x",
            ):  # fmt: skip
                assert (await client.get(path)).status_code == 401, path
            for path in (
                "/stream",
                "/batch",
                "/agui",
                "/gradio_api/queue/join",
                "/gradio_api/call/chat",
                "/gradio_api/cancel",
            ):
                assert (await client.post(path, json={})).status_code == 401, path
            with pytest.raises(InvalidStatus) as refusal:
                async with socket_of(app):
                    pass
            assert refusal.value.response.status_code in (401, 403)
            assert (await client.get("/config", auth=("zoe", "secret"))).status_code in (200, 401)
            assert (await client.post("/login", data={"username": "zoe", "password": "secret"})).status_code == 200
            assert (await client.get("/config")).status_code == 200
            assert (await client.get("/backends")).status_code == 200


async def test_no_response_shows_a_path_or_a_trace(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    with live_app(tmp_path) as app:
        async with client_of(app) as client:
            for method, path, body in (
                ("POST", "/stream", b"{"), ("POST", "/stream", b"\xff\xfe"), ("POST", "/agui", b"[]"),
                ("POST", "/gradio_api/queue/join", b"{}"),
                ("POST", "/gradio_api/queue/join", b"\xff"),
                ("POST", "/gradio_api/queue/join", b'{"data": [1e999]}'),
                ("POST", "/gradio_api/call/chat", b'{"data": [NaN]}'),
                ("POST", "/gradio_api/call/chat", b'{"data": [1, 2, 3, 4, 5]}'), ("POST", "/gradio_api/call/no", b"{}"),
                ("POST", "/gradio_api/cancel", b"null"), ("POST", "/gradio_api/reset", b'{"event_id": []}'),
                ("POST", "/login", b"x"), ("GET", "/assets/none.js", b""), ("GET", "/gradio_api/queue/data", b""),
                ("GET", "/stream?query=x&temperature=no", b""), ("PUT", "/stream", b""), ("GET", "/runs/%00", b""),
            ):  # fmt: skip
                answer = await client.request(method, path, content=body, headers={"Content-Type": "application/json"})
                assert "Traceback" not in answer.text and root not in answer.text and ".py" not in answer.text, path
                assert "site-packages" not in answer.text and answer.status_code < 500, (path, answer.text)


async def test_unknown_host_is_refused(tmp_path: Path) -> None:
    """DNS rebinding: evil.example resolves to this machine, so that its page has the same origin."""
    with live_api(tmp_path) as app:
        port = app.settings.port
        async with client_of(app) as visitor:
            for host in (
                "evil.example",
                f"evil.example:{port}",
                f"localhost.evil.example:{port}",
                "127.0.0.1.nip.example",
            ):
                rebound = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
                for method, path in (
                    ("GET", "/"), ("GET", "/backends"), ("GET", "/conversations"), ("GET", "/config"),
                    ("POST", "/stream"), ("POST", "/gradio_api/queue/join"), ("POST", "/documents?name=a.txt"),
                    ("GET", "/metrics"), ("GET", "/gradio_api/heartbeat/x"), ("GET", "/assets/x.js"),
                    ("POST", "/login"), ("GET", "/nowhere"),
                ):  # fmt: skip
                    answer = await visitor.request(method, path, headers=rebound, json={} if method == "POST" else None)
                    message = await refused(answer, 400, "invalid_request")
                    assert "allowed_hosts" in message
                    assert "set-cookie" not in answer.headers
                with pytest.raises(InvalidStatus) as refusal:
                    async with socket_of(app, visitor, headers={"Host": host, "Origin": f"http://{host}"}):
                        pass
                assert refusal.value.response.status_code == 400
                assert (await visitor.get("/healthz", headers={"Host": host})).status_code == 200
            forwarded = {"Host": f"evil.example:{port}", "X-Forwarded-Host": f"127.0.0.1:{port}"}
            assert (await visitor.get("/backends", headers=forwarded)).status_code == 400, "a page can send that"
            assert (await visitor.get("/backends", headers={"Host": f"localhost:{port}"})).status_code == 200
