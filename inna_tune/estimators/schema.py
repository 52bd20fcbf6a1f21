"""What a table was when a model was fitted on it, so that later tables are read the same way."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, get_args

import numpy as np
import pandas as pd
from pandas.api import types

from inna_tune.estimators.columns import HELD, Kind, is_plain
from inna_tune.estimators.frames import TEXT, UnreadableValueWarning
from inna_tune.estimators.number_forms import NumberForm, read_form

KINDS: tuple[Kind, ...] = get_args(Kind)

# What stands for a missing value in a file: the words that pandas takes for it.
MISSING = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
    )
)

# Longer texts are no such word, whatever blanks are around it.
_LONGEST_WORD = 24

# The spelling of levels is kept of columns of at most so many.
MAX_LEVELS = 100

_TRUE = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
_EXPECTED = {
    "number": "a number",
    "boolean": "true or false",
    "duration": "a duration such as 1 days 02:00:00",
    "time": "a time of day such as 10:30:00",
}


@dataclass(frozen=True)
class ColumnSchema:
    """What a column was.

    Attributes
    ----------
    name : str
    kind : {"number", "boolean", "text", "date", "duration", "time", "mixed"}
        ``date``, ``duration`` and ``time`` are such of a typed table; in a file of text dates are text, which the encoder
        reads. ``mixed`` are levels that are numbers and text.
    whole : bool
        Whether all numbers were whole ones.
    form : NumberForm
        How numbers are written.
    missing : tuple of str
        What stood for missing values besides the words of ``MISSING``.
    kept : tuple of str
        Words of ``MISSING`` that were values here: a DataFrame may hold the level "None".
    levels : tuple of str
        The spelling of the levels of text, where there are at most 100.
    """

    name: str
    kind: Kind
    whole: bool = False
    form: NumberForm = field(default_factory=NumberForm)
    missing: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"column {self.name!r}: kind {self.kind!r} is none of {', '.join(KINDS)}")

    def to_plain(self) -> dict[str, Any]:
        """As JSON-able data; what is as by default is left out."""
        usual = asdict(ColumnSchema(self.name, self.kind))
        return {n: v for n, v in asdict(self).items() if n in ("name", "kind") or v != usual[n]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The column that ``to_plain`` described.

        Raises
        ------
        ValueError, TypeError, KeyError
            If the description makes no sense.
        """
        form = NumberForm(**{str(k): str(v) for k, v in plain.get("form", {}).items()})
        texts = {n: tuple(str(t) for t in plain.get(n, ())) for n in ("missing", "kept", "levels")}
        return cls(
            str(plain["name"]), plain["kind"], whole=bool(plain.get("whole", False)), form=form, **texts
        )

    def absent(self, column: pd.Series) -> pd.Series:
        """Which texts stand for a missing value, as booleans [n]."""
        return are_words(column, (MISSING | set(self.missing)) - set(self.kept))


@dataclass(frozen=True)
class TableSchema:
    """What the columns of a table were, in their order.

    Attributes
    ----------
    columns : tuple of ColumnSchema
    """

    columns: tuple[ColumnSchema, ...]

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) < len(names):
            raise ValueError(f"columns of one name: {sorted({n for n in names if names.count(n) > 1})}")

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    def __getitem__(self, name: str) -> ColumnSchema:
        return next(column for column in self.columns if column.name == name)

    def of(self, names: Iterable[str]) -> Self:
        """The schema of some of the columns, in the order of ``names``; others than these are left out."""
        own = {column.name: column for column in self.columns}
        return replace(self, columns=tuple(own[name] for name in names if name in own))

    def to_plain(self) -> list[dict[str, Any]]:
        """As JSON-able data."""
        return [column.to_plain() for column in self.columns]

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]]) -> Self:
        """The schema that ``to_plain`` described.

        Raises
        ------
        ValueError, TypeError, KeyError
            If the description makes no sense.
        """
        return cls(tuple(ColumnSchema.from_plain(column) for column in plain))

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> Self:
        """The schema of a DataFrame, by its dtypes.

        Parameters
        ----------
        frame : DataFrame of shape [n_samples, n_features]
        """
        dtypes = list(frame.dtypes)
        return cls(
            tuple(
                _plain(str(name), dtype) or _describe(str(name), frame.iloc[:, i])
                for i, (name, dtype) in enumerate(zip(frame.columns, dtypes, strict=True))
            )
        )

    def conform(self, frame: pd.DataFrame, *, first_row: int = 0) -> tuple[pd.DataFrame, "Misfits"]:
        """A table with its columns as the fitted table had them.

        Every value is read by itself: what comes of a row does not depend on the other rows.

        Parameters
        ----------
        frame : DataFrame of shape [n_samples, n_features]
            Its columns of text become what they were; those that are typed already stay. Columns that the schema does not
            name stay as they are.
        first_row : int
            What messages count rows from.

        Returns
        -------
        frame : DataFrame of shape [n_samples, n_features]
        misfits : Misfits
            What could not be read, and now is missing.
        """
        own = {column.name: column for column in self.columns}
        misfits = Misfits()
        found: dict[Any, pd.Series] = {}
        changed = False
        for i, name in enumerate(frame.columns):
            column = frame.iloc[:, i]
            schema = own.get(str(name))
            read = column if schema is None else _conform(column, schema, misfits, first_row)
            changed |= read is not column
            found[name] = read
        return (pd.DataFrame(found, copy=False) if changed else frame), misfits


@dataclass
class Misfits:
    """Values that were not what their columns hold.

    Attributes
    ----------
    counts : dict of str to int
        By column.
    examples : dict of str to list of tuple of int and str
        The first few rows, counted from 0, and what stood there.
    expected : dict of str to str
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)

    def add(self, schema: ColumnSchema, column: pd.Series, bad: Any, first_row: int) -> None:
        """Note those values of a column that are ``bad``, booleans [n]."""
        places = np.flatnonzero(bad)
        if not len(places):
            return
        name = schema.name
        self.counts[name] = self.counts.get(name, 0) + len(places)
        own = self.examples.setdefault(name, [])
        own += [(first_row + int(i), str(column.iloc[i])[:40]) for i in places[: 3 - len(own)]]
        # A word is no number however it is written; for a number written another way that is what helps.
        has_digits = any(character.isdigit() for _, text in own for character in text)
        is_told = schema.kind == "number" and (has_digits or not schema.form.plain)
        written = f" written as {schema.form.words!r}" if is_told else ""
        self.expected[name] = _EXPECTED[schema.kind] + written

    def merge(self, other: "Misfits") -> None:
        """Add what further rows of the same table held."""
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
            own = self.examples.setdefault(name, [])
            own += other.examples[name][: 3 - len(own)]
        self.expected |= other.expected

    def sentences(self) -> list[str]:
        """One sentence a column."""
        found = []
        for name, count in self.counts.items():
            rows = ", ".join(f"{text!r} in row {row + 1}" for row, text in self.examples[name])
            more = " and others" if count > len(self.examples[name]) else ""
            values, counts = ("1 value is", "counts") if count == 1 else (f"{count} values are", "count")
            found.append(
                f"Column {name!r}: {values} not {self.expected[name]} and {counts} as missing: {rows}{more}."
            )
        return found

    def warn(self, stacklevel: int = 2) -> None:
        """Say it as an UnreadableValueWarning a column."""
        for sentence in self.sentences():
            warnings.warn(sentence, UnreadableValueWarning, stacklevel=stacklevel + 1)


def are_words(texts: pd.Series, words: Collection[str]) -> pd.Series:
    """Which texts are one of some short words, with blanks around them or not, as booleans [n].

    Parameters
    ----------
    texts : Series of str [n]
    words : collection of str
        Blanks at their ends do not count either.
    """
    stripped = {word.strip() for word in words}
    found = texts.isin(stripped)
    short = (texts.str.len().fillna(_LONGEST_WORD + 1) <= _LONGEST_WORD).astype(bool) & ~found
    if short.any():
        distinct = pd.Series(texts[short].unique(), dtype=object)
        found |= texts.isin(distinct[distinct.str.strip().isin(stripped)])
    return found


def levels_of(column: pd.Series) -> tuple[str, ...]:
    """The texts of a column in the order of the alphabet, if there are at most 100, none of them long."""
    distinct = column.dropna().unique()
    if len(distinct) > MAX_LEVELS or any(len(str(text)) > 100 for text in distinct):
        return ()
    return tuple(sorted(map(str, distinct)))


# ---------------------------------------------------------------------- of a DataFrame


def _plain(name: str, dtype: Any) -> ColumnSchema | None:
    """Of a column of numpy's numbers, which need not be looked at."""
    if not is_plain(dtype):
        return None
    return ColumnSchema(name, "boolean" if dtype.kind == "b" else "number", whole=dtype.kind in "iu")


def _describe(name: str, column: pd.Series) -> ColumnSchema:
    held = types.infer_dtype(column, skipna=True)
    if held == "categorical":
        inner = _describe(name, pd.Series(column.cat.categories))
        return replace(inner, kind="mixed") if inner.kind == "number" else replace(inner, kind="text")
    kind = HELD.get(held, "mixed")
    return _text(name, column) if kind == "text" else ColumnSchema(name, kind, whole=held == "integer")


def _text(name: str, column: pd.Series) -> ColumnSchema:
    kept = tuple(sorted(map(str, column[column.isin(MISSING)].unique())))
    return ColumnSchema(name, "text", kept=kept, levels=levels_of(column))


# ---------------------------------------------------------------------- of new rows


def _conform(column: pd.Series, schema: ColumnSchema, misfits: Misfits, first_row: int) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype) and schema.kind != "mixed":
        column = column.astype(column.cat.categories.dtype)
    if not _is_text(column):
        return _spell(column, schema) if schema.kind == "text" else column
    if schema.kind == "mixed" and not all(isinstance(v, str) for v in column[column.notna()]):
        return column
    if column.dtype == object:
        # Numbers among the texts are written as text is that holds them.
        column = column.map(str, na_action="ignore")
    absent = schema.absent(column)
    if absent.any():
        column = column.mask(absent)
    if schema.kind in ("text", "date"):
        return column
    if schema.kind == "mixed":
        return _mixed(column)
    if schema.kind == "number":
        numbers = pd.Series(read_form(column, schema.form), index=column.index)
    elif schema.kind == "boolean":
        numbers = column.str.strip().str.lower().map(_TRUE).astype(np.float64)
    elif schema.kind == "duration":
        numbers = pd.to_timedelta(column.astype(object), errors="coerce")
    else:
        numbers = pd.to_timedelta(column.astype(object), errors="coerce") / pd.Timedelta(hours=1)
    misfits.add(schema, column, (numbers.isna() & column.notna()).to_numpy(), first_row)
    return numbers


def _is_text(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.StringDtype) or (
        isinstance(column.dtype, pd.ArrowDtype) and column.dtype.type is str
    ):
        return True
    if column.dtype != object:
        return False
    return any(isinstance(value, str) for value in column)


def _spell(column: pd.Series, schema: ColumnSchema) -> pd.Series:
    """Numbers and booleans as the levels that they are: 1 is the level "01" or "1.0" if only that one is it."""
    if not schema.levels or not types.is_numeric_dtype(column.dtype):
        return column
    if types.is_bool_dtype(column.dtype):
        spelled: dict[Any, str] = {}
        for level in schema.levels:
            if level.lower() in ("true", "false"):
                spelled[level.lower() == "true"] = level
        return column.astype(object).map(lambda v: spelled.get(v, str(v)), na_action="ignore")
    meant: dict[float, str] = {}
    for level in schema.levels:
        number = read_form(pd.Series([level], dtype=TEXT), NumberForm())[0]
        # Of two spellings of one number the canonical one is it.
        if not np.isnan(number) and (number not in meant or level == _canonical(number)):
            meant[float(number)] = level
    if not meant:
        return column
    return column.astype(object).map(lambda v: meant.get(float(v), _canonical(float(v))), na_action="ignore")


def _canonical(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(float(number))


def _mixed(column: pd.Series) -> pd.Series:
    """Texts that are numbers as such, but for codes such as "01"."""
    codes, texts = pd.factorize(column)
    plain = pd.Series(texts, dtype=TEXT)
    numbers = read_form(plain, NumberForm())
    padded = plain.str.match(r"[-+]?0\d").fillna(False).to_numpy()
    values: list[Any] = [
        text if np.isnan(number) or zero else int(number) if number.is_integer() else float(number)
        for text, number, zero in zip(texts, numbers, padded, strict=True)
    ]
    return pd.Series([*values, np.nan], dtype=object).iloc[codes].set_axis(column.index)
