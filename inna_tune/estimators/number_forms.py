"""Numbers in disguise: text such as "1,234.50", "1234,50", "$12", "12 %", "1 234" or "(5.00)" that means a number."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa

from inna_tune.estimators.frames import Floats

# Share of a column's values that must be numbers of one form.
LEAST_SHARE = 0.95

# Spaces that separate groups of digits: the plain one, no-break, figure, thin, narrow no-break.
_SPACES = " \u00a0\u2007\u2009\u202f"
_CURRENCIES = "$€£¥₹₽₩₺₪฿₫₴₦₱₡"
_CODES = (
    *("USD", "EUR", "GBP", "JPY", "CHF", "CAD", "AUD", "NZD", "CNY", "INR", "RUB", "BRL"),
    *("SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "TRY", "ZAR", "MXN", "KRW"),
)
# As people write them; the longer of two that begin alike first.
_WORDS = (
    *("US$", "CA$", "AU$", "NZ$", "HK$", "R$", "C$", "A$", "S$"),
    *("Euro", "Rs.", "Rs", "kr.", "kr", "zł", "Kč", "Ft", "lei", "лв.", "лв", "руб.", "руб", "Fr."),
)

# A tie goes to the first: "1.234" is a decimal number, "1,234" a whole one.
_SIGNS = ((".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'"))

_SIGN = "[-+\u2212\u2013]"
_UNIT = "|".join([f"[{_CURRENCIES}]", f"(?i:{'|'.join(map(re.escape, (*_CODES, *_WORDS)))})", "%"])
# Signs, brackets and units around the digits, which say nothing of how the digits are written.
_AROUND = re.compile(
    rf"(?P<open>\()?(?P<sign>{_SIGN})?[{_SPACES}]?(?P<before>{_UNIT})?[{_SPACES}]?(?P<second>{_SIGN})?"
    rf"(?P<digits>[\d.,'\u2019{_SPACES}]*\d[\d.,]*(?:[eE]{_SIGN}?\d+)?)"
    rf"(?P<third>-)?[{_SPACES}]?(?P<after>{_UNIT})?(?P<close>\))?"
)


@dataclass(frozen=True)
class NumberForm:
    """How the numbers of a column are written.

    Attributes
    ----------
    decimal : {".", ","}
    thousands : {"", ",", ".", " ", "'"}
        Between groups of digits; the space stands for every kind of space.
    unit : str
        A sign, a name or the three letters of a currency, or "%"; "" if none. Per cents are not divided by 100.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        if (self.decimal, self.thousands) not in _SIGNS or not re.fullmatch(f"(?:{_UNIT})?", self.unit):
            raise ValueError(f"{self} is no form of a number.")

    @property
    def plain(self) -> bool:
        """Whether numbers are written as in programs."""
        return self == NumberForm()

    @property
    def words(self) -> str:
        """The form as an example, such as "$1,234.5"."""
        number = f"1{self.thousands}234{self.decimal}5"
        if self.unit == "%":
            return f"{number} %"
        return f"{number} {self.unit}" if len(self.unit) > 1 else self.unit + number


def find_form(column: pd.Series, *, decimal: str | None = None) -> NumberForm | None:
    """The form in which at least 95% of a column's texts are numbers.

    Of several, that in which most are. Whole numbers with needless zeros in front are numbers here: whether "007" is a
    code is for the caller to say (``has_leading_zeros``).

    Parameters
    ----------
    column : Series of str, missing values among them
    decimal : {".", ","}, optional
        What is taken where the texts leave it open, as "1,234" does.

    Returns
    -------
    NumberForm or None
        None too where no value is there.

    Examples
    --------
    >>> texts = pd.Series(["1.234,50 €", "(12,00) €"])
    >>> form = find_form(texts)
    >>> form.words, read_form(texts, form).tolist()
    ('€1.234,5', [1234.5, -12.0])
    """
    counts = column.value_counts()
    total = int(counts.sum())
    if not total:
        return None
    # The first few tell most columns of words from numbers, and spare a long look at long texts.
    if total > 100:
        first = counts.iloc[:100]
        seen = sum(n for text, n in first.items() if _around(str(text)) is not None)
        if total - (int(first.sum()) - seen) < LEAST_SHARE * total:
            return None
    texts, weights = [], []
    units: dict[str, int] = {}
    for text, n in counts.items():
        found = _around(str(text))
        if found is not None:
            texts.append(found)
            weights.append(int(n))
            units[found[1]] = units.get(found[1], 0) + int(n)
    if sum(weights) < LEAST_SHARE * total:
        return None
    unit = max((u for u in units if u), key=lambda u: units[u], default="")
    if unit and units[unit] < units.get("", 0):
        unit = ""
    best: tuple[int, NumberForm] | None = None
    signs = sorted(_SIGNS, key=lambda pair: decimal is not None and pair[0] != decimal)
    for mark, thousands in signs:
        form = NumberForm(mark, thousands, unit)
        written = _digits(form)
        fitting = sum(
            n
            for (digits, own, _), n in zip(texts, weights, strict=True)
            if _same_unit(own, unit) and written.fullmatch(digits)
        )
        if fitting >= LEAST_SHARE * total and (best is None or fitting > best[0]):
            best = fitting, form
    return None if best is None else best[1]


def read_form(column: pd.Series, form: NumberForm) -> Floats:
    """The numbers that texts of one form mean.

    Parameters
    ----------
    column : Series of str [n], missing values among them
    form : NumberForm

    Returns
    -------
    ndarray of float64 [n]
        NaN where the text is missing, is no number of this form, or one beyond float64.
    """
    if form.plain and (quick := _cast(column)) is not None:
        return quick
    codes, texts = pd.factorize(column)
    values = np.array([*(_value(str(text), form) for text in texts), np.nan], dtype=np.float64)
    return np.asarray(values[codes])


def _cast(column: pd.Series) -> Floats | None:
    """All texts at once, where all are plain numbers; both ways round correctly, so that they give the same bits."""
    try:
        texts = pa.array(column, type=pa.large_string(), from_pandas=True)
        numbers = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return None
    return np.asarray(numbers) if np.isfinite(numbers).sum() == len(texts) - texts.null_count else None


def has_leading_zeros(column: pd.Series) -> bool:
    """Whether texts look like codes, "01", "02", and not like numbers: whole, and padded with zeros.

    One padded value in twenty makes codes of a column, or a single one where all are of one length.
    """
    counts = column.value_counts()
    padded = total = 0
    lengths = set()
    for text, n in counts.items():
        text = str(text).strip()
        if not text.isdecimal():
            return False
        total += int(n)
        padded += int(n) * (len(text) > 1 and text[0] == "0")
        lengths.add(len(text))
    return padded > 0 and (len(lengths) == 1 or padded >= total / 20)


def _around(text: str) -> tuple[str, str, bool] | None:
    """The digits of a text, its unit and whether it is below zero; None if more stands there than a number."""
    # NOTE: no number is longer, and texts of megabytes come.
    if len(text) > 60:
        return None
    found = _AROUND.fullmatch(text.strip())
    if found is None or (found["open"] is None) != (found["close"] is None):
        # "(12,00) €" and "€ (12,00)" have the unit outside of the brackets.
        return _around_brackets(text.strip())
    signs = [s for s in (found["sign"], found["second"], found["third"]) if s]
    units = [u for u in (found["before"], found["after"]) if u]
    if len(signs) + (found["open"] is not None) > 1 or len(units) > 1:
        return None
    # SAP writes 12.50-; whole numbers with a dash behind them are grades.
    if found["third"] and not re.search(r"\D\d", found["digits"].strip()):
        return None
    below = found["open"] is not None or (bool(signs) and signs[0] != "+")
    return found["digits"].strip(), "".join(units), below


def _around_brackets(text: str) -> tuple[str, str, bool] | None:
    found = re.fullmatch(
        rf"(?P<before>{_UNIT})?[{_SPACES}]?\((?P<inner>[^()]*)\)[{_SPACES}]?(?P<after>{_UNIT})?", text
    )
    if found is None or (found["before"] is None) == (found["after"] is None):
        return None
    inner = _around(found["inner"])
    if inner is None or inner[1] or inner[2]:
        return None
    return inner[0], found["before"] or found["after"], True


def _same_unit(own: str, unit: str) -> bool:
    # A price may stand without its currency, but 5 and 5% are different numbers.
    return own.casefold() == unit.casefold() or (own == "" and unit != "%")


@cache
def _digits(form: NumberForm) -> re.Pattern[str]:
    """What the digits of a form look like."""
    mark = re.escape(form.decimal)
    whole = r"\d+"
    if form.thousands:
        between = f"[{_SPACES}]" if form.thousands == " " else "['\u2019]"
        between = re.escape(form.thousands) if form.thousands in ",." else between
        grouped = rf"[1-9]\d{{0,2}}(?:{between}\d{{3}})+"
        # Lakhs and crores: 12,34,567.
        indian = r"|[1-9]\d?(?:,\d{2})+,\d{3}" if form.thousands == "," else ""
        whole = rf"(?:{grouped}{indian}|\d+)"
    return re.compile(rf"(?:{whole}(?:{mark}\d*)?|{mark}\d+)(?:[eE]{_SIGN}?\d+)?")


def _value(text: str, form: NumberForm) -> float:
    found = _around(text)
    if found is None or not _same_unit(found[1], form.unit) or not _digits(form).fullmatch(found[0]):
        return np.nan
    digits = "".join(_ascii(found[0], form))
    value = float(digits)
    if not np.isfinite(value):
        return np.nan
    return -value if found[2] else value


def _ascii(digits: str, form: NumberForm) -> Iterator[str]:
    for sign in digits:
        if sign == form.decimal:
            yield "."
        elif sign in "\u2212\u2013":
            yield "-"
        elif sign.isdecimal() or sign in "eE+-":
            yield sign
