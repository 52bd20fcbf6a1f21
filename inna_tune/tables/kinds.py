"""What a column of texts holds: decided once, from all rows of the table that a model is fitted on."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from inna_tune.estimators.frames import Floats
from inna_tune.estimators.number_forms import NumberForm, find_form, has_leading_zeros, read_form
from inna_tune.estimators.schema import MAX_LEVELS, MISSING, ColumnSchema, Misfits, are_words, levels_of

# What else stands for a missing value among numbers. Among levels these are levels.
_NO_NUMBER = (
    *("?", "-", "--", "–", "—", ".", "*", "missing", "unknown", "n.a.", "N.A.", "na", "n.d.", "\\N"),
    *("(null)", "nil", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"),
)

# A country's code; among others of two letters it is Namibia's.
_NAMIBIA = "NA"

_FEW_LABELS = 20

# A date, a number or a code; "None" among such is a gap.
_DIGITS = re.compile(r"\d")

# Whole numbers beyond these are not exact in float64.
_EXACT = 2**53


def decide(
    texts: pd.Series, name: str, *, decimal: str | None = None
) -> tuple[pd.Series, ColumnSchema, Misfits]:
    """What the texts of a column are, and the column as that.

    Whole numbers, numbers (of one form, see ``number_forms``), booleans written True and False, and else text. Codes such as
    "01" are text. Up to a twentieth of the values may be none of the numbers that the others are; those are missing.

    Parameters
    ----------
    texts : Series of str [n]
    name : str
    decimal : {".", ","}, optional
        The table's decimal sign, where it is known.

    Returns
    -------
    column : Series [n]
        Of int64, Int64, float64, bool, boolean or str.
    schema : ColumnSchema
    misfits : Misfits
        Values that were no numbers among numbers.
    """
    misfits = Misfits()
    present = texts.mask(are_words(texts, MISSING))
    if present.isna().all():
        empty = pd.Series(np.full(len(texts), np.nan), index=texts.index)
        return empty, ColumnSchema(name, "number"), misfits
    first = present.dropna().iloc[0]
    if first in ("True", "False") and present.dropna().isin(["True", "False"]).all():
        flags = present.map({"True": True, "False": False}).astype("boolean")
        return (flags if flags.hasnans else flags.astype(bool)), ColumnSchema(name, "boolean"), misfits
    found = _number_form(present, decimal)
    if found is None:
        kept = _levels_kept(texts, present)
        if kept:
            present = texts.mask(are_words(texts, MISSING - set(kept)))
        return present, ColumnSchema(name, "text", kept=kept, levels=levels_of(present)), misfits
    form, words = found
    schema = ColumnSchema(name, "number", form=form, missing=words)
    masked = present.mask(are_words(present, words)) if words else present
    numbers = read_form(masked, form)
    bad = np.isnan(numbers) & masked.notna().to_numpy()
    # The header is row 1.
    misfits.add(schema, masked, bad, 1)
    if bad.any() and _are_labels(numbers):
        return present, ColumnSchema(name, "text", levels=levels_of(present)), Misfits()
    if _is_whole(masked, form):
        column = _whole(masked, numbers)
        if column is None:
            return present, ColumnSchema(name, "text", levels=levels_of(present)), Misfits()
        return column, replace(schema, whole=True), misfits
    return with_gaps(pd.Series(numbers, index=texts.index)), schema, misfits


def with_gaps(numbers: pd.Series) -> pd.Series:
    """Numbers in float64; in Float64 where they are whole and some are missing.

    pandas makes floats of whole numbers with gaps, so that 0.0 need not be a label that was written 0.0: here it was.
    """
    values = numbers.to_numpy()
    missing = np.isnan(values)
    if not missing.any() or missing.all() or not (values == np.round(values))[~missing].all():
        return numbers
    return numbers.astype("Float64")


def _are_labels(numbers: Floats) -> bool:
    """Whether numbers are few and whole, so that a text among them is a further label and no mistake."""
    distinct = np.unique(numbers[~np.isnan(numbers)])
    return len(distinct) <= _FEW_LABELS and bool((distinct == np.round(distinct)).all())


def _number_form(present: pd.Series, decimal: str | None) -> tuple[NumberForm, tuple[str, ...]] | None:
    """The form of a column's numbers and what else stood for missing among them."""
    if has_leading_zeros(present):
        return None
    form = find_form(present, decimal=decimal)
    words = present[are_words(present, _NO_NUMBER)].str.strip().unique().tolist()
    if form is None and words:
        rest = present.mask(are_words(present, words))
        if has_leading_zeros(rest):
            return None
        form = find_form(rest, decimal=decimal)
        # One word stands for "missing": several say different things, unless there are so many numbers.
        if form is not None and len(words) > 1 and _are_labels(read_form(rest, form)):
            return None
    if form is None:
        return None
    return form, tuple(sorted(words))


def _levels_kept(texts: pd.Series, present: pd.Series) -> tuple[str, ...]:
    """Words for missing that are levels of a column of text: "None" beside other words, "NA" among codes of two letters."""
    others = present.dropna().unique()
    if not len(others) or len(others) > MAX_LEVELS:
        return ()
    kept = []
    if _NAMIBIA in (words := set(texts[texts.isin(["NA", "None"])])) and len(others) > 2:
        kept += [_NAMIBIA] if all(re.fullmatch("[A-Z]{2}", text) for text in others) else []
    if "None" in words and len(others) <= _FEW_LABELS and not any(map(_DIGITS.search, others)):
        kept.append("None")
    return tuple(kept)


def _is_whole(texts: pd.Series, form: NumberForm) -> bool:
    """Whether all numbers are written as whole ones: 1 and not 1.0."""
    mark = r"\." if form.decimal == "." else ","
    # The signs as such: pandas 2 hands patterns to RE2, which knows no escapes of Unicode.
    return not texts.str.contains(rf"{mark}|\d[eE][-+−–]?\d", regex=True, na=False).any()


def _whole(texts: pd.Series, numbers: Floats) -> pd.Series | None:
    """Whole numbers as int64, Int64 where some are missing; None where int64 does not hold them: these are names."""
    there = ~np.isnan(numbers)
    if (np.abs(numbers[there]) > _EXACT).any():
        values = [int(re.sub(r"\D", "", text)) if ok else 0 for text, ok in zip(texts, there, strict=True)]
        if max(values) > np.iinfo(np.int64).max:
            return None
        exact = np.array(values, dtype=np.int64) * np.where(numbers < 0, -1, 1)
    else:
        exact = np.where(there, numbers, 0).astype(np.int64)
    if there.all():
        return pd.Series(exact, index=texts.index)
    return pd.Series(pd.array(exact, dtype="Int64"), index=texts.index).mask(~there)
