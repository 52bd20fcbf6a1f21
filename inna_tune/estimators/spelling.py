"""How a value is written as a level: the same text whatever type holds it, so that what was fitted is met again."""

import datetime as dt
import hashlib
import re
import unicodedata
from decimal import Decimal
from numbers import Integral, Rational, Real
from typing import Any

import numpy as np
import pandas as pd

# How Python writes floats, as files and ``astype(str)`` have them.
_FLOAT = re.compile(r"-?\d+\.\d+|-?\d(?:\.\d+)?e[+-]\d{2,3}")

# Truth values are written in as many ways as there are libraries; each column takes the one that it was fitted with.
_TRUTHS = (("True", "true", "TRUE", "1"), ("False", "false", "FALSE", "0"))
SYNONYMS = {word: group for group in _TRUTHS for word in group}

# Longer texts are told apart by their digest: a model would otherwise hold megabytes of names.
_LONGEST = 256


def write_level(value: Any) -> str:
    """A value as the text of its level.

    Numbers are written in the shortest way that tells them from others of their precision, whole ones without a point: 1,
    1.0, ``numpy.int8(1)``, ``Decimal("1.00")`` and the text "1.0" are all "1", and a tenth is "0.1" in single and in double
    precision. Texts are otherwise left as they are, in Unicode's form NFC: "1.10" and "01" are no numbers but codes. Bytes
    are read as UTF-8, and the time of a date is written where there is one.

    Parameters
    ----------
    value : object
        Not missing.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If the value is a complex number.

    Examples
    --------
    >>> [write_level(v) for v in (1, 1.0, "1.0", True, "1.10", b"x", 0.1)]
    ['1', '1', '1', 'True', '1.10', 'x', '0.1']
    """
    if isinstance(value, str):
        return _text(str(value))
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, Integral)):
        return str(int(value))
    if isinstance(value, (bytes, bytearray)):
        return _text(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, (Real, Decimal)):
        return _number(value)
    if isinstance(value, (complex, np.complexfloating)):
        raise TypeError(f"Complex data not supported: {value!r}.")
    if isinstance(value, (dt.datetime, np.datetime64)):
        return str(pd.Timestamp(value).isoformat(sep=" ")).removesuffix(" 00:00:00")
    if isinstance(value, np.timedelta64):
        value = value.astype("timedelta64[us]").astype(dt.timedelta)
    if isinstance(value, dt.timedelta):
        return str(value.to_pytimedelta() if isinstance(value, pd.Timedelta) else value)
    return str(value)


def shorten(text: str) -> str:
    """The text itself, or of one of more than 256 characters the beginning and a digest of the whole."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[:80]}… {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _text(text: str) -> str:
    # An é may be one character or two.
    text = text if text.isascii() else unicodedata.normalize("NFC", text)
    if _FLOAT.fullmatch(text) and repr(float(text)) == text:
        return _float(float(text))
    return text


def _number(value: Any) -> str:
    if isinstance(value, Decimal):
        if not value.is_finite():
            return _float(float(value))
        if value == value.to_integral_value():
            return str(int(value))
        if Decimal(repr(float(value))) != value:
            # More digits than a float has.
            return str(value.normalize())
    elif isinstance(value, Rational) and value.denominator == 1:
        return str(int(value.numerator))
    return _float(float(value))


def _float(value: float) -> str:
    if value.is_integer():
        return str(int(value))
    # A number of single precision that went through a double is still written as it was.
    with np.errstate(over="ignore", under="ignore"):
        single = np.float32(value)
    if np.isfinite(single) and float(single) == value:
        return repr(float(np.format_float_scientific(single, unique=True)))
    return repr(value)
