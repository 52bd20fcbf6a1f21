"""Categorical columns: one output a level where they are few, codes for a learned embedding where they are many."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from inna_tune.estimators.columns import Codes, Matrix, read_levels
from inna_tune.estimators.frames import Weights
from inna_tune.estimators.plans import ColumnPlan, DroppedPlan
from inna_tune.estimators.spelling import SYNONYMS, shorten

# The two codes that every column of codes has, met in training or not.
OTHER, MISSING = 0, 1


@dataclass(frozen=True)
class Counted:
    """The levels of a column and how often they occur.

    Attributes
    ----------
    codes : ndarray of int64 [n_samples]
        Level of each row, −1 where missing.
    texts : list of str
        Those that occur.
    counts : ndarray of float64 [len(texts)]
        Weight of the rows of each level.
    missing : float
        Weight of the rows where the column is missing.
    """

    codes: Codes
    texts: list[str]
    counts: npt.NDArray[np.float64]
    missing: float

    @property
    def total(self) -> float:
        """Weight of all rows."""
        return float(self.counts.sum() + self.missing)


def count_levels(column: pd.Series, name: str, weight: Weights | None) -> Counted:
    """Read a column as levels, in the order of their texts, and count them."""
    codes, texts = read_levels(column, name)
    counts = np.bincount(codes + 1, weights=weight, minlength=len(texts) + 1).astype(np.float64)
    # Categories that no row has are no levels; the order of the texts makes that of the rows irrelevant.
    order = np.array(sorted(np.flatnonzero(counts[1:] > 0), key=texts.__getitem__), dtype=np.int64)
    places = np.full(len(texts) + 1, -1)
    places[order] = np.arange(len(order))
    return Counted(places[codes], [texts[i] for i in order], counts[1:][order], float(counts[0]))


@dataclass(frozen=True)
class OneHotPlan(ColumnPlan):
    """A column with one output a level.

    Attributes
    ----------
    levels : list of str or None
        The levels with an output of their own, most frequent first; None stands for missing values.
    shares : list of float
        Share of each level in the training rows, and last that of all other levels together.
    """

    kind = "categorical"
    levels: list[str | None] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.levels) + 1:
            raise ValueError(f"column {self.name!r}: {len(self.shares)} shares of {len(self.levels)} levels")

    @property
    def floats(self) -> list[str]:
        names = ["missing" if level is None else level for level in self.levels]
        names += ["other"] if self.shares[-1] > 0 else []
        return [f"{self.name}_{n}" for n in names]

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        # What is no level gets the column behind the last, "other", where there is one, and else none.
        places = _places(column, self.name, self.levels, other=len(self.levels))
        width = floats.shape[1]
        floats[:] = -np.asarray(self.shares[:width])
        known = np.flatnonzero(places < width)
        floats[known, places[known]] += 1.0


@dataclass(frozen=True)
class CodedPlan(ColumnPlan):
    """A column with one output, the code of its level.

    Code 0 stands for rare levels and those not met in training, code 1 for missing values; both are there even if no
    training row has them.

    Attributes
    ----------
    levels : list of str
        The levels of the codes 2, 3, …, most frequent first.
    shares : list of float
        Share of each code in the training rows.
    """

    kind = "coded"
    levels: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.levels) + 2:
            raise ValueError(f"column {self.name!r}: {len(self.shares)} shares of {self.n_codes} codes")

    @property
    def n_codes(self) -> int:
        return len(self.levels) + 2

    def encode(self, column: pd.Series, numbers: Matrix, floats: Matrix, codes: Matrix) -> None:
        codes[:, 0] = _places(column, self.name, [None, None, *self.levels], other=OTHER)


def _places(column: pd.Series, name: str, levels: list[str | None], *, other: int) -> Codes:
    """Where in ``levels`` each row's level is, ``other`` where it is not; None, the last of them, is missing."""
    codes, texts = read_levels(column, name)
    known = {level: i for i, level in enumerate(levels)}
    for word, group in SYNONYMS.items():
        place = next((known[synonym] for synonym in group if synonym in known), None)
        if place is not None:
            known.setdefault(word, place)
    places = [known.get(shorten(text), other) for text in texts]
    # Code −1, missing, is the last place.
    return np.array([*places, known.get(None, other)], dtype=np.int64)[codes]


def plan_levels(
    name: str, counted: Counted, *, max_levels: int, min_count: float, max_codes: int, embed: bool
) -> ColumnPlan:
    """Choose between one output a level and codes.

    Codes are taken where more than ``max_levels`` levels occur twice or more; what occurs once shares a code, and teaches
    what a level never met is like. With one output a level those are rare that occur less often than ``min_count``.
    Both bounds are at most a hundredth of the rows.

    Parameters
    ----------
    name : str
    counted : Counted
    max_levels : int
        Most outputs, besides that of all other levels.
    min_count : float
    max_codes : int
        Most codes.
    embed : bool
        Whether codes may be taken at all.
    """
    present: list[tuple[str | None, float]] = sorted(
        zip(map(shorten, counted.texts), counted.counts.tolist(), strict=True),
        key=lambda level: (-level[1], level[0]),
    )
    levels = list(present)
    if counted.missing > 0:
        # NOTE: among equally frequent levels missing comes first.
        levels.insert(sum(count > counted.missing for _, count in present), (None, counted.missing))
    if len(levels) < 2:
        return DroppedPlan(name, "constant" if present else "empty")
    total = counted.total
    n_repeated = sum(count >= min(2.0, total / 100) for _, count in present)
    if embed and n_repeated > max_levels:
        n_kept = min(n_repeated, max_codes - 2)
        weights = [sum(count for _, count in present[n_kept:]), counted.missing]
        weights += [count for _, count in present[:n_kept]]
        texts = [str(text) for text, _ in present[:n_kept]]
        return CodedPlan(name, levels=texts, shares=[w / total for w in weights])
    bound = min(min_count, total / 100) if len(levels) > 2 else 0.0
    n_kept = min(sum(count >= bound for _, count in levels), max_levels)
    if n_kept == 0:
        return DroppedPlan(name, "rare")
    shares = [count / total for _, count in levels[:n_kept]]
    rest = sum(count for _, count in levels[n_kept:])
    return OneHotPlan(name, levels=[text for text, _ in levels[:n_kept]], shares=[*shares, rest / total])
