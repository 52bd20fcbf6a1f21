"""What was understood of a table, column by column, and what people regret not to have seen."""

import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Self

import pandas as pd
from pandas.api import types

from inna_tune import clock
from inna_tune.estimators import TableEncoder
from inna_tune.estimators.dates import DatePlan
from inna_tune.estimators.numbers import SpikedPlan
from inna_tune.estimators.plans import ColumnPlan, DroppedPlan
from inna_tune.estimators.schema import TableSchema
from inna_tune.tables.problem import Problem
from inna_tune.tables.regrets import find_regrets

# Rows that the encoder looks at, so that a view of a large table does not take as long as a fit.
# So many columns are described whatever the time is: those that a study keeps.
_SURELY = 200
_MOST_ROWS = 50_000

_KINDS = {
    "numeric": "number",
    "blended": "number",
    "spiked": "number",
    "categorical": "levels",
    "coded": "levels, embedded",
    "date": "date",
    "text": "text",
}
_REASONS = {"constant": "one value only", "empty": "no values", "rare": "no level occurs often enough"}


@dataclass(frozen=True)
class ColumnView:
    """What was understood of a column.

    Attributes
    ----------
    name, taken_as : str
    missing : int
    values : str
        The range of numbers and dates, or the levels.
    example : str
    left_out : str or None
        Why it is no feature.
    """

    name: str
    taken_as: str
    missing: int
    values: str
    example: str
    left_out: str | None = None


@dataclass(frozen=True)
class Understanding:
    """What was understood of a table.

    Attributes
    ----------
    n_rows : int
        With a target, where there is one.
    target : str or None
        What it is taken as, in words.
    columns : tuple of ColumnView
    warnings : tuple of str
        What a person may want to change before fitting, one sentence each.
    """

    n_rows: int
    target: str | None
    columns: tuple[ColumnView, ...]
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line: how many columns are taken as what."""
        counted = Counter(view.taken_as.split(",")[0] for view in self.columns if view.left_out is None)
        parts = [f"{n} as {kind}" for kind, n in counted.most_common()]
        left_out = [f"{v.name!r} ({v.left_out})" for v in self.columns if v.left_out is not None]
        if left_out:
            more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
            parts.append(f"left out: {', '.join(left_out[:5])}{more}")
        return f"{len(self.columns)} columns: {', '.join(parts)}"

    def to_json(self, *, most: int | None = None) -> dict[str, Any]:
        """As plain data; of the columns the first ``most``."""
        return asdict(self) | {"columns": [asdict(view) for view in self.columns[:most]]}

    @classmethod
    def from_json(cls, data: Any) -> Self | None:
        """Read what `to_json` wrote; None where it is none."""
        try:
            views = tuple(
                ColumnView(
                    **{k: str(view[k]) for k in ("name", "taken_as", "values", "example")},
                    missing=int(view["missing"]),
                    left_out=None if view["left_out"] is None else str(view["left_out"]),
                )
                for view in data["columns"]
            )
            target = None if data["target"] is None else str(data["target"])
            return cls(int(data["n_rows"]), target, views, tuple(str(w) for w in data["warnings"]))
        except (KeyError, TypeError, ValueError):
            return None


def understand(
    frame: pd.DataFrame,
    schema: TableSchema,
    problem: Problem | None = None,
    *,
    seconds: float | None = None,
) -> Understanding:
    """What was understood of a table, and what may be wrong with it.

    Parameters
    ----------
    frame : DataFrame of shape [n_samples, n_columns]
    schema : TableSchema
        Of its columns.
    problem : Problem, optional
        The same table with its target: what of the columns are features, and whether one tells the target.
    seconds : float, optional
        That it may take; then not every column of a wide table may be tried alone, or its values described.

    Returns
    -------
    Understanding
    """
    deadline = None if seconds is None else clock.now() + seconds
    features = frame if problem is None else problem.X
    plans = _plans(features)
    own = {column.name: column for column in schema.columns}
    targets = () if problem is None else problem.targets
    views: list[ColumnView] = []
    for name in map(str, frame.columns):
        column = frame[name]
        left_out = None
        if name in targets:
            taken_as = "target"
        elif problem is not None and name in problem.left_out:
            taken_as, left_out = "number", "numbers the rows"
        elif problem is not None and name in problem.dropped:
            taken_as, left_out = "nothing", "dropped, as asked"
        else:
            plan = plans[name]
            taken_as = _KINDS.get(plan.kind, "nothing")
            if isinstance(plan, DroppedPlan):
                taken_as = {"number": "number", "date": "date"}.get(own[name].kind, "levels")
                left_out = _REASONS.get(plan.reason, plan.reason)
            elif isinstance(plan, SpikedPlan):
                taken_as += f", {plan.spike:g} in {plan.share:.0%} of the rows"
            elif isinstance(plan, DatePlan) and plan.format:
                taken_as += f", written {plan.format}"
        form = own[name].form if name in own else None
        if form is not None and not form.plain:
            taken_as += f", written {form.words}"
        if name in own and own[name].missing:
            taken_as += f", {' '.join(map(repr, own[name].missing))} is missing"
        is_late = len(views) >= _SURELY and deadline is not None and clock.now() > deadline
        words = ("", "") if is_late else (describe_values(column), _example(column))
        views.append(ColumnView(name, taken_as, int(column.isna().sum()), *words, left_out))
    return Understanding(
        len(features),
        None if problem is None else problem.description,
        tuple(views),
        () if problem is None else tuple(find_regrets(problem, schema, deadline=deadline)),
    )


def describe_values(column: pd.Series) -> str:
    """The range of numbers or dates, or the levels of a column, the most frequent first."""
    present = column.dropna()
    if not len(present):
        return ""
    dtype = present.dtype
    if types.is_bool_dtype(dtype) or not (
        types.is_numeric_dtype(dtype) or types.is_datetime64_any_dtype(dtype)
    ):
        counts = present.map(str).value_counts()
        shown = ", ".join(_short(str(level), 20) for level in counts.index[:4])
        return f"{len(counts)} levels: {shown}{', …' if len(counts) > 4 else ''}"
    low, high = present.min(), present.max()
    if types.is_datetime64_any_dtype(dtype):
        # NOTE: strftime ends at the year 9999.
        return " to ".join(end.isoformat().split("T")[0] for end in (low, high))
    return f"{low:.6g} to {high:.6g}"


def _plans(features: pd.DataFrame) -> dict[str, ColumnPlan]:
    rows = features
    if len(features) > _MOST_ROWS:
        rows = features.sample(_MOST_ROWS, random_state=0)
    with warnings.catch_warnings():
        # What is left out is told column by column.
        warnings.simplefilter("ignore")
        return {plan.name: plan for plan in TableEncoder().fit(rows).plan_}


def _example(column: pd.Series) -> str:
    present = column.dropna()
    return _short(str(present.iloc[0]), 30) if len(present) else ""


def _short(text: str, most: int) -> str:
    text = " ".join(text[: 4 * most].split())
    return text if len(text) <= most else text[: most - 1] + "…"
