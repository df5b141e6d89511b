"""axe-core in a page: the rules of WCAG 2.1 A and AA, one heading of the first level, and regions."""

import re
from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

_SOURCE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
_RUN = """() => axe.run(document, {
  runOnly: { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] },
  rules: { 'page-has-heading-one': { enabled: true }, region: { enabled: true } },
  resultTypes: ['violations'],
})"""


def violations(page: Page) -> list[str]:
    """Returns a line for each element that violates a rule."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(_SOURCE)
    found: Any = page.evaluate(_RUN)
    return [_line(rule["id"], node) for rule in found["violations"] for node in rule["nodes"]]


def _line(rule: str, node: dict[str, Any]) -> str:
    checks = [check["message"] for kind in ("any", "all", "none") for check in node[kind]]
    markup = re.sub(r"\s+", " ", node["html"])[:120]
    return f"{rule}: {' '.join(map(str, node['target']))} {markup} ({'; '.join(checks)[:160]})"
