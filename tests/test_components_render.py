from components.render import render_modes
from memory.modes import MODES


def test_memory_menu_begins_with_the_configured_names_and_says_what_a_mode_does() -> None:
    choices = render_modes()
    assert [choice["name"] for choice in choices] == list(MODES)
    assert all(choice["shown"].startswith(choice["name"]) and choice["about"] for choice in choices)
    assert next(choice for choice in choices if choice["name"] == "tokens") == {
        "name": "tokens",
        "state": "Fit to limit",
        "about": "newest messages first",
        "shown": "tokens · Fit to limit",
    }
