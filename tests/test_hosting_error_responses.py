import logging

import pytest
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from hosting.error_responses import LoggedCORSMiddleware, RefusalLog, error_response_for
from runs.errors import ChatError


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_each_reason_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = RefusalLog(lambda: now)
    caplog.set_level(logging.INFO, "hosting.error_responses")
    for _ in range(100):
        log.note("host", "a.example is not known")
        log.note("login", "a request without a login")
    assert lines(caplog) == [
        "refused (host): a.example is not known",
        "refused (login): a request without a login",
    ]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    now = 61.0
    log.note("host", "a.example is not known")
    assert lines(caplog)[2:] == ["refused (host): a.example is not known (99 more of this kind since the last line)"]


def test_flood_of_refusals_fills_neither_log_nor_memory(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog(lambda: 0.0)
    for n in range(10_000):
        log.note("host", f"{n}.example is not known")
    assert len(lines(caplog)) == 3
    assert len(log._windows) == 1 and len(log._windows["host"].reasons) == 3


def test_people_get_a_page_and_programs_json() -> None:
    error = ChatError("invalid_request", "<b> is not known.")
    accepts = (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8")
    scope = {"type": "http", "method": "GET", "headers": [accepts]}
    for headers in ([accepts], [accepts, (b"sec-fetch-mode", b"navigate")]):
        page = error_response_for(scope | {"headers": headers}, error)
        assert page.status_code == 400 and page.media_type == "text/html"
        assert b"&lt;b&gt; is not known." in page.body and b"<b>" not in page.body
    assert b"<title>This request was refused \xc2\xb7 Glassbox</title>" in page.body
    named = error_response_for(scope | {"headers": [accepts]}, error, site="Whales & more")
    assert b"<title>This request was refused \xc2\xb7 Whales &amp; more</title>" in named.body
    fetched = [accepts, (b"sec-fetch-mode", b"cors")]
    for other in (scope | {"headers": []}, scope | {"headers": fetched}, scope | {"type": "websocket"}):
        assert error_response_for(other, error).body == b'{"code":"invalid_request","message":"<b> is not known."}'


def test_refused_preflight_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    cors = LoggedCORSMiddleware(
        PlainTextResponse("x"), log=RefusalLog(), allow_origins=["https://friend.example"], allow_methods=["*"]
    )
    asks = {"access-control-request-method": "POST"}
    assert cors.preflight_response(Headers({"origin": "https://friend.example"} | asks)).status_code == 200
    assert lines(caplog) == []
    assert cors.preflight_response(Headers({"origin": "https://other.example"} | asks)).status_code == 400
    (line,) = lines(caplog)
    assert "https://other.example" in line and "allowed_origins" in line
