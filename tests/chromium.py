"""A headless Chromium for tests: the lightest one that is installed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from bench.browser import FLAGS

_NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
"""The first is the engine without a browser's window around each page, which costs as much again as the page."""

_RESOLVE = "--host-resolver-rules=MAP chat.example.org 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
"""As FLAGS, and the host of tests/nginx.py is on this machine."""


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Skips the test where none is installed, or fails it with GLASSBOX_TEST_BROWSER=required."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("GLASSBOX_TEST_BROWSER") == "required":
            pytest.fail("no Chromium is installed, and GLASSBOX_TEST_BROWSER=required")
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*FLAGS, _RESOLVE])
        yield browser
        browser.close()
