"""Tests; one file for each module of the source, and what they share."""

import pytest

# what tests share asserts, too, and tells what it saw
for _shared in ("agui", "calls", "grammar", "pages", "remote"):
    pytest.register_assert_rewrite(f"tests.{_shared}")
