from hypothesis import given
from hypothesis import strategies as st

from backends.chat_template import tokens_of_texts

TEXTS = st.lists(st.text(st.sampled_from("a \n<é\U0001f600"), max_size=6), min_size=1, max_size=5)


def rendered(texts: list[str], *, stripped: bool = False) -> str:
    return "".join(f"<{text.strip() if stripped else text}>\n" for text in texts) + "<"


@given(TEXTS, st.booleans(), st.integers(1, 3))
def test_every_token_belongs_to_exactly_one_text(texts: list[str], stripped: bool, size: int) -> None:
    marks = [f"MARK{n}." for n in range(len(texts))]
    prompt, marked = rendered(texts, stripped=stripped), rendered(marks)
    data = prompt.encode()
    pieces: list[str | list[int]] = [list(data[at : at + size]) for at in range(0, len(data), size)]
    counts = tokens_of_texts(prompt, marked, marks, texts, pieces)
    assert counts is not None
    ends = [len(rendered(texts[: n + 1], stripped=stripped).encode()) - len(b">\n<") for n in range(len(texts))]
    assert [sum(counts[: n + 1]) for n in range(len(texts))] == [-(-end // size) for end in ends]


def test_a_template_that_changes_a_text_gives_none() -> None:
    assert tokens_of_texts("<HI>", "<MARK0.>", ["MARK0."], ["hi"], ["<", "HI", ">"]) is None
    assert tokens_of_texts("<hi>", "<>", ["MARK0."], ["hi"], ["<", "hi", ">"]) is None
    assert tokens_of_texts("<hi>", "<MARK0.>", ["MARK0."], ["hi"], ["<", "hi"]) is None, "a piece is missing"
