from hypothesis import given
from hypothesis import strategies as st

from runs.rate_curve import MOST_SPANS, RateCurve

OUTPUT = st.lists(st.tuples(st.floats(0, 5000), st.integers(0, 50)), max_size=60).map(sorted)


@given(OUTPUT)
def test_curve_counts_every_token_in_few_spans(output: list[tuple[float, int]]) -> None:
    curve = RateCurve()
    for at_s, tokens in output:
        curve = curve.add(at_s, tokens)
    assert sum(curve.tokens) == sum(tokens for _, tokens in output)
    assert len(curve.tokens) <= MOST_SPANS
    last = max((at_s for at_s, tokens in output if tokens), default=None)
    if last is not None:
        assert len(curve.tokens) == int(last / curve.span_s) + 1, "it ends with the latest output"


def test_longer_spans_join_two_of_the_shorter_ones() -> None:
    curve = RateCurve(1.0, (1, 2, 3))
    assert curve.halved() == RateCurve(2.0, (3, 3))
    assert curve.halved().rates() == [1.5, 1.5]
