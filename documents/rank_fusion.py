"""Reciprocal rank fusion: joins rankings whose scores cannot be compared.

Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", SIGIR 2009, https://doi.org/10.1145/1571941.1572114
"""

from collections.abc import Sequence
from dataclasses import replace

from documents.index import Passage

_K = 60
"""The constant of the paper: how little the first ranks count for more than the others."""


def fuse(rankings: Sequence[Sequence[Passage]], most: int) -> list[Passage]:
    """Returns the passages of all rankings, best first: of each ranking, a passage gets 1 / (60 + its rank)."""
    scores = dict[Passage, float]()
    for ranking in rankings:
        for rank, passage in enumerate(ranking, 1):
            unscored = replace(passage, score=0.0)
            scores[unscored] = scores.get(unscored, 0.0) + 1 / (_K + rank)
    best = sorted(scores, key=lambda passage: -scores[passage])[:most]
    return [replace(passage, score=scores[passage]) for passage in best]
