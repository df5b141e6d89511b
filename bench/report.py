"""What the benchmark has found, as Markdown tables: ratios within this one run, of medians over the repetitions (pages)
or of all work by all time (rates).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import harmonic_mean, median
from typing import Any

Row = Mapping[str, Any]
"""One measurement: `repetition`, `case`, and its figures or `error`.

Of the page ("reply" or "stop") and of tools (what one yields) it has `page` and `history`, of the rate ("rate") `side`
and `conversations`.
"""

MOST_RATIO = 1.2
"""A long conversation may cost our page at most this much more per token than a new one."""
LEAST_RATE = 0.95
"""Text reaches the log at no less than this share of the bare binding's rate."""
MOST_LATE_MS = 300
"""The p95 of how late tools' partial results are on the page is at most this."""

MOST_GAP_MS = 250
"""Between two tokens, for the p99 of all gaps of all followers of a run."""
MOST_COST = 1.5
"""What followers of a run cost our server is at most this much of what they cost the minimal one."""

_REPLY = {
    "behind_p50_ms": "behind schedule p50, ms",
    "behind_p95_ms": "p95, ms",
    "first_token_ms": "first token, ms",
    "server_cpu_ms_per_token": "server CPU, ms/token",
    "browser_cpu_ms_per_token": "browser CPU, ms/token",
    "long_tasks": "long tasks",
}
_CPU = {"server_cpu_ms_per_token": "server CPU", "browser_cpu_ms_per_token": "browser CPU"}


_RATES = {"together_per_s": "while all are written", "from_first_per_s": "first to last piece"}


def print_rates(rows: Sequence[Row]) -> bool:
    """Prints the rates; returns whether ours is within the bound for each number of conversations."""
    header = ["conversations", "bare, tokens/s", "ours, tokens/s", "ours to bare", f"at least {LEAST_RATE}"]
    print("\n## The bundled model's text in the run's log, beside the bare binding\n")
    print(_table([*header, *_RATES.values()], _rate_lines(rows)))
    print("\nFrom asking to the last piece of all, since that is what each side takes for the same work: prompts and")
    print("starts included, in whatever order. Both sides write at once and are held in turn, several times a second;")
    print("a side's time is that of its own turns. Rates over all repetitions together: all tokens by all time.")
    print("In brackets the range of the repetitions' own ratios.")
    _print_others(rows)
    failed = [row for row in rows if "error" in row]
    for row in failed:
        print(f"\n{row['side']}, {row['conversations']}, repetition {row['repetition']} failed: {row['error']}")
    return not failed and all(_fast(rows, many) for many in _conversations(rows))


def print_followers(rows: Sequence[Row]) -> bool:
    """Prints how followers are served; returns whether those of one run are within the bounds."""
    names = {
        "gap_p50_ms": "gap p50, ms",
        "gap_p99_ms": "p99, ms",
        "gap_worst_ms": "worst, ms",
        "cpu_s": "server CPU, s",
    }
    names["kb_each"] = "kB to each"
    sides = {row["side"]: [one for one in rows if one["side"] == row["side"]] for row in rows}
    print("\n## 100 followers over Server-Sent Events, 300 tokens at 20 a second\n")
    lines = [[side, *(_number(_middle(mine, name)) for name in names)] for side, mine in sides.items()]
    print(_table(["", *names.values()], lines))
    print("\nMedians of the repetitions. `minimal` is sse-starlette with a stream of the model for each follower.")
    _print_failed(rows)
    if any("error" in row for row in rows):
        return False
    ours, peer = sides["ours, one run"], sides["minimal"]
    cost = median(row["cpu_s"] for row in ours) / median(row["cpu_s"] for row in peer)
    print(f"\nOne run's followers cost {cost:.2f} of the minimal server's CPU (at most {MOST_COST}).")
    return cost <= MOST_COST and median(row["gap_p99_ms"] for row in ours) <= MOST_GAP_MS


def print_drops(rows: Sequence[Row]) -> bool:
    """Prints what drops have cost; returns whether that is nothing."""
    print("\n## Lines that drop\n")
    lines = [[str(row["runs"]), str(row["dropped"]), str(row["whole"]), str(sum(row["left"].values()))] for row in rows]
    print(_table(["runs", "forced drops", "whole replies, once", "runs, followers and tasks left"], lines))
    return all(row["whole"] == row["runs"] and not sum(row["left"].values()) for row in rows)


MOST_GROWN = 1.10
"""Memory after a soak, to that early in it; after the fifth repetition of an attack, to that after the second."""
MOST_SLOWER, NOISE_S = 2.0, 0.1
"""Another visitor's first token during an attack, to the quiet one; less of a difference than this is not counted: the
attacker shares the machine.
"""


def print_attacks(rows: Sequence[Row]) -> bool:
    """Prints what attacks cost another visitor; returns whether that is within the bounds."""
    print("\n## One visitor attacks, another sends short messages\n")
    header = [
        "attack",
        "backend",
        "first token, ms: quiet",
        "meanwhile",
        "ratio",
        "worst",
        "memory, MB",
        "last to second",
    ]
    print(_table([*header, "wrong"], [line for row in rows for line in _attack_lines(row)]))
    print("\nMedians of messages sent at regular times, whatever has become of the earlier ones. At most ")
    print(f"{MOST_SLOWER:g} times the quiet one, where that is more than {NOISE_S * 1000:.0f} ms of a difference.")
    for row in rows:
        for words in row["wrong"][:10]:
            print(f"- {row['attack']}: {words}")
    return not any(row["wrong"] or _grown(row) > MOST_GROWN or _slowed(row) for row in rows)


def _grown(row: Row) -> float:
    memory = row["memory"]
    return float(memory[-1] / memory[min(2, len(memory) - 1)])


def _slowed(row: Row) -> bool:
    """Whether too late, or never, for any backend."""
    quiet = {backend: median(waits) for backend, waits in row["quiet_s"].items()}
    late = {backend: median(row["meanwhile_s"][backend] or [math.inf]) for backend in quiet}
    return any(late[name] > max(MOST_SLOWER * first, first + NOISE_S) for name, first in quiet.items())


def _attack_lines(row: Row) -> Iterable[list[str]]:
    for backend, waits in row["quiet_s"].items():
        quiet, during = median(waits), row["meanwhile_s"][backend] or [math.inf]
        times = [f"{1000 * seconds:.0f}" for seconds in (quiet, median(during))]
        memory = " ".join(f"{size / 1e6:.0f}" for size in row["memory"])
        yield [
            *(row["attack"], backend, *times, f"{median(during) / quiet:.1f}", f"{1000 * max(during):.0f}"),
            *(memory, f"{_grown(row):.2f}", str(len(row["wrong"]))),
        ]


def print_soak(rows: Sequence[Row]) -> bool:
    """Prints how the app bore its visitors; returns whether nothing went wrong, grew or was left."""
    print("\n## Many visitors, a tenth of them hostile\n")
    header = ["minutes", "visitors", "acts", "tokens", "wrong", "memory, MB: early", "late", "after", "after to early"]
    header += ["left"]
    lines = [
        [
            f"{row['minutes']:g}",
            str(row["visitors"]),
            f"{sum(row['done'].values()):,}",
            f"{row['tokens']:,}",
            str(len(row["wrong"])),
            *(f"{row[name] / 1e6:.0f}" if row[name] else "-" for name in ("early_bytes", "late_bytes", "after_bytes")),
            f"{row['after_bytes'] / row['early_bytes']:.2f}" if row["early_bytes"] else "-",
            str(sum(row["left"].values())),
        ]
        for row in rows
    ]
    print(_table(header, lines))
    for row in rows:
        print(f"- {', '.join(f'{name} {n}' for name, n in sorted(row['done'].items()))}; left: {row['left']}")
        for words in row["wrong"][:40]:
            print(f"- {words}")
    return not any(
        row["wrong"]
        or sum(row["left"].values())
        or (row["early_bytes"] and row["after_bytes"] > MOST_GROWN * row["early_bytes"])
        for row in rows
    )


MOST_LOST_S = 1.0
"""Of a reply that a kill has cut: how long before it was written what its client has seen and is not stored."""
MOST_START = 1.5
"""A start after a kill, to one with nothing stored."""


def print_kills(rows: Sequence[Row]) -> bool:
    """Prints what `kill -9` has cost; returns whether that is at most the last second of a reply."""
    kills = [row for row in rows if row["case"] == "kill"]
    header = ["model", "killed", "kills", "messages acknowledged", "replies cut", "lost of them p50, s", "worst, s"]
    header += ["kills that lost more", "databases damaged"]
    print("\n## kill -9 while four conversations stream\n")
    print(_table(header, _kill_lines(kills)))
    for row in kills:
        for words in [*row["wrong"], *row["damage"]]:
            print(f"- {row['model']}, {row['moment']}: {words}")
    empty = _print_starts(rows)
    cut = [lost for row in kills for lost in row["lost_s"]]
    if not cut:
        print("\nNo reply was cut, so this shows nothing.")
    quick = empty is None or empty <= MOST_START
    return bool(cut) and quick and not any(_lost(row) or row["damage"] for row in kills)


def _lost(row: Row) -> bool:
    return bool(row["wrong"]) or max(row["lost_s"], default=0.0) > MOST_LOST_S


def _kill_lines(kills: Sequence[Row]) -> Iterable[list[str]]:
    for model, moment in dict.fromkeys((row["model"], row["moment"]) for row in kills):
        mine = [row for row in kills if (row["model"], row["moment"]) == (model, moment)]
        cut = [lost for row in mine for lost in row["lost_s"]]
        spans = [f"{median(cut):.2f}", f"{max(cut):.2f}"] if cut else ["-", "-"]
        counts = len(mine), sum(row["acknowledged"] for row in mine), len(cut)
        bad = sum(map(_lost, mine)), sum(bool(row["damage"]) for row in mine)
        yield [model, moment, *map(str, counts), *spans, *map(str, bad)]


def _print_starts(rows: Sequence[Row]) -> float | None:
    """Returns a start after a kill to one with nothing stored, by the clock; None where that was not measured."""
    starts = {
        "after a kill": [row for row in rows if row["case"] == "kill" and row["model"] == "scripted"],
        "after a clean end": [row for row in rows if row["case"] == "usual start"],
        "with nothing stored": [row for row in rows if row["case"] == "empty start"],
    }
    after = starts["after a kill"]
    if not starts["with nothing stored"]:
        return None
    lines, ratio = [], 0.0
    for name, mine in starts.items():
        line = [name, str(len(mine))]
        for figure in ("start_s", "start_cpu_s"):
            each = [row[figure] for row in mine]
            ratio = median(row[figure] for row in after) / median(each)
            line += [f"{median(each):.1f} ({min(each):.1f} to {max(each):.1f})", f"{ratio:.2f}"]
        lines.append(line)
    print()
    print(_table(["start", "times", "seconds", "after a kill, to it", "CPU, s", "after a kill, to it"], lines))
    print(f"\nMedians, in brackets the range; by the clock at most {MOST_START} of one with nothing stored.")
    return float(
        median(row["start_s"] for row in after) / median(row["start_s"] for row in starts["with nothing stored"])
    )


MOST_CHOICE_MS, MOST_OPEN_MS, LONG = 20, 1000, 2000
"""For a conversation of so many messages."""


def print_memory(rows: Sequence[Row]) -> bool:
    """Prints what long conversations cost; returns whether that is within the bounds, and grows no faster than they."""
    choices, openings = ([row for row in rows if row["case"] == case] for case in ("choice", "opening"))
    sizes = sorted({row["size"] for row in choices})
    print("\n## Choosing what the model is given, p50 in ms (the first turn after a start in brackets)\n")
    later = {(row["mode"], row["size"]): median(row["later_ms"]) for row in choices}
    first = {(row["mode"], row["size"]): row["first_ms"] for row in choices}
    modes = list(dict.fromkeys(row["mode"] for row in choices))
    lines = [[mode, *(f"{later[mode, n]:.1f} ({first[mode, n]:.0f})" for n in sizes)] for mode in modes]
    print(_table(["mode", *(f"{n:,} messages" for n in sizes)], lines))
    good = all(later[mode, LONG] <= MOST_CHOICE_MS for mode in modes if mode != "full")
    grown = sizes[-1] / LONG
    good = good and all(later[mode, sizes[-1]] <= 1.5 * grown * later[mode, LONG] for mode in modes)
    if openings:
        print("\n## Opening a conversation, until it is drawn, p50 in ms\n")
        lines = [
            [f"{n:,}", *(f"{median([r[k] for r in openings if r['size'] == n]):.0f}" for k in ("place_ms", "load_ms"))]
            for n in sorted({row["size"] for row in openings})
        ]
        print(_table(["messages", "from the list", "with the page itself"], lines))
        good = good and median([r["place_ms"] for r in openings if r["size"] == LONG]) <= MOST_OPEN_MS
    return good


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def print_tools(rows: Sequence[Row]) -> bool:
    """Prints how late tools' partial results are; returns whether all are within the bound."""
    header = ["a tool yields", "earlier messages", "p50, ms", "p95, ms", "worst, ms", f"p95 within {MOST_LATE_MS}"]
    lines = list(_tool_lines(rows))
    print("\n## Partial results of tools, from the yield to the page\n")
    print(_table(header, lines))
    print("\nUntil each is first in the DOM, its call's part open. Of p50 and p95 the repetitions' median, in brackets")
    print("their range, which the machine's moods stretch; the worst is that of all.")
    _print_others(rows)
    _print_failed(rows)
    return all(line[-1] == "yes" for line in lines) and not any("error" in row for row in rows)


def _tool_lines(rows: Sequence[Row]) -> Iterable[list[str]]:
    for case, history in sorted({(row["case"], row["history"]) for row in rows}):
        mine = [row for row in rows if (row["case"], row["history"]) == (case, history)]
        late = [row["late_ms"] for row in mine if "late_ms" in row]
        if not late:
            yield [case, str(history), "-", "-", "-", "no"]
            continue
        middle, most = ([percentile(each, percent) for each in late] for percent in (50, 95))
        span = f"{_number(median(most))} ({_number(min(most))} to {_number(max(most))})"
        within = "yes" if median(most) <= MOST_LATE_MS else "no"
        yield [case, str(history), _number(median(middle)), span, _number(max(map(max, late))), within]


def _conversations(rows: Sequence[Row]) -> list[int]:
    return sorted({row["conversations"] for row in rows})


def _rates(rows: Sequence[Row], side: str, many: int, figure: str) -> list[float]:
    mine = [row for row in rows if (row["side"], row["conversations"]) == (side, many)]
    return [row[figure] for row in mine if figure in row]


def _share(rows: Sequence[Row], many: int, figure: str) -> float | None:
    bare, ours = (_rates(rows, side, many, figure) for side in ("bare", "ours"))
    return harmonic_mean(ours) / harmonic_mean(bare) if bare and ours else None


def _fast(rows: Sequence[Row], many: int) -> bool:
    return round(_share(rows, many, "tokens_per_s") or 0.0, 3) >= LEAST_RATE


def _rate_lines(rows: Sequence[Row]) -> Iterable[list[str]]:
    for many in _conversations(rows):
        bare, ours = (_rates(rows, side, many, "tokens_per_s") for side in ("bare", "ours"))
        each = [one / other for one, other in zip(ours, bare, strict=False)]
        ratio = f"{_share(rows, many, 'tokens_per_s'):.3f} ({min(each):.2f} to {max(each):.2f})" if each else "-"
        middles = [_number(harmonic_mean(side)) if side else "-" for side in (bare, ours)]
        others = [_share(rows, many, figure) for figure in _RATES]
        shown = ["-" if other is None else f"{other:.3f}" for other in others]
        yield [str(many), *middles, ratio, "yes" if _fast(rows, many) else "no", *shown]


def print_report(rows: Sequence[Row], tokens: int, rate: int, history: int) -> bool:
    """Prints all tables; returns whether replies were whole, our Stop stopped and our ratios are within the bound."""
    replies = [row for row in rows if row["case"] == "reply"]
    print(f"\n## A reply of {tokens} tokens at {rate} a second\n")
    print(_table(["page", "earlier messages", *_REPLY.values(), "complete, in order"], _reply_lines(replies)))
    print(f"\n## CPU per token, {history} earlier messages to none\n")
    print(_table(["page", *_CPU.values(), f"within {MOST_RATIO}"], _ratio_lines(replies, history)))
    print("\nThe median of the repetitions' ratios, in brackets their range.")
    print("\n## Stop\n")
    header = ["page", "click to the model's end, ms", "tokens emitted after the click", "model stopped"]
    print(_table(header, _stop_lines(rows)))
    _print_failed(rows)
    whole = all(row.get("complete_in_order") for row in replies)
    stopped = all(row.get("stop_ms") is not None for row in rows if row["case"] == "stop" and row["page"] == "ours")
    failed = any("error" in row for row in rows)
    return whole and stopped and not failed and _within(replies, "ours", history)


def _print_others(rows: Iterable[Row]) -> None:
    if taken := [row["others_cpu"] for row in rows if "others_cpu" in row]:
        print(f"Other programs took {median(taken):.2f} of a processor meanwhile, at most {max(taken):.2f}.")


def _print_failed(rows: Iterable[Row]) -> None:
    for row in rows:
        if "error" in row:
            where = f"{row['page']}, {row['history']} earlier" if "page" in row else row["side"]
            what = f"{row['case']}, {where}, repetition {row['repetition']}"
            print(f"\n{what} failed: {row['error']}")


def _table(header: Iterable[str], lines: Iterable[Sequence[str]]) -> str:
    header = list(header)
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def _middle(rows: Iterable[Row], figure: str) -> float | None:
    found = [row[figure] for row in rows if row.get(figure) is not None]
    return median(found) if found else None


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    digits = 0 if value == int(value) or value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _pages(rows: Iterable[Row]) -> list[tuple[str, int]]:
    """What was measured, ours first."""
    return sorted({(row["page"], row["history"]) for row in rows})


def _of(rows: Iterable[Row], page: str, history: int) -> list[Row]:
    return [row for row in rows if (row["page"], row["history"]) == (page, history)]


def _reply_lines(replies: Sequence[Row]) -> Iterable[list[str]]:
    for page, history in _pages(replies):
        mine = _of(replies, page, history)
        whole = sum(bool(row.get("complete_in_order")) for row in mine)
        yield [page, str(history), *(_number(_middle(mine, f)) for f in _REPLY), f"{whole} of {len(mine)}"]


def _ratios(replies: Sequence[Row], page: str, history: int, figure: str) -> list[float]:
    """A figure with earlier messages over the same without, for each repetition that has both."""
    found = []
    for repetition in sorted({row["repetition"] for row in replies}):
        turn = [row for row in replies if row["repetition"] == repetition]
        long, new = _middle(_of(turn, page, history), figure), _middle(_of(turn, page, 0), figure)
        if long and new:
            found.append(long / new)
    return found


def _within(replies: Sequence[Row], page: str, history: int) -> bool:
    ratios = [_ratios(replies, page, history, figure) for figure in _CPU]
    return all(each and round(median(each), 2) <= MOST_RATIO for each in ratios)


def _ratio_lines(replies: Sequence[Row], history: int) -> Iterable[list[str]]:
    for page in dict.fromkeys(page for page, _ in _pages(replies)):
        ratios = [_ratios(replies, page, history, figure) for figure in _CPU]
        cells = [f"{median(r):.2f} ({min(r):.2f} to {max(r):.2f})" if r else "-" for r in ratios]
        yield [page, *cells, "yes" if _within(replies, page, history) else "no"]


def _stop_lines(rows: Sequence[Row]) -> Iterable[list[str]]:
    stops = [row for row in rows if row["case"] == "stop"]
    for page, history in _pages(stops):
        mine = _of(stops, page, history)
        stopped = sum(row.get("stop_ms") is not None for row in mine)
        figures = [_number(_middle(mine, f)) for f in ("stop_ms", "tokens_after_click")]
        yield [page, *figures, f"{stopped} of {len(mine)}"]
