"""The benchmark of attacks: one attack, once; and the limits."""

import pytest

from bench import attacks
from bench.attackers import ATTACKS
from bench.attacks import measure_attacks, report


def test_another_visitor_is_answered_during_an_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "_QUIET_S", 1.0)
    [row] = measure_attacks(1, ["threads"])
    assert row["wrong"] == [] and row["memory"][0] > 0
    assert all(waits and min(waits) > 0 for waits in (*row["quiet_s"].values(), *row["meanwhile_s"].values()))


@pytest.mark.parametrize(
    ("more", "good"),
    [
        ({}, True),
        ({"meanwhile_s": {"Bench": [0.03, 0.35, 0.35]}}, False),
        ({"meanwhile_s": {"Bench": [0.03, 0.12, 0.13]}}, True),
        ({"meanwhile_s": {"Bench": []}}, False),
        ({"memory": [90, 100, 200, 210, 220, 221]}, False),
        ({"memory": [90, 100, 200]}, True),
        ({"wrong": ["Bench: 500"]}, False),
    ],
    ids=["quiet", "late", "noise", "never", "memory", "warm-up", "error"],
)
def test_limits_of_tokens_memory_and_errors(
    more: dict[str, object], good: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "case": "attack",
        "attack": "records",
        "quiet_s": {"Bench": [0.03]},
        "meanwhile_s": {"Bench": [0.04]},
        "memory": [90, 100, 200, 210],
    }
    assert report([row | {"wrong": []} | more]) is good
    assert "| records | Bench | 30 |" in capsys.readouterr().out


def test_attacks_have_unique_names() -> None:
    assert len({attack.__name__ for attack in ATTACKS}) == len(ATTACKS)
