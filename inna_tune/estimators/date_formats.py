"""In which format dates are written: decided once, from the whole column."""

import re
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pandas.tseries.api import guess_datetime_format

from inna_tune.estimators.instants import parse
from inna_tune.estimators.number_forms import LEAST_SHARE

# So many texts are shown to pandas' guesses.
_SAMPLE = 30

_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"

# What a date written out begins with: 2020-01-31, 31/1/2020, 31 Jan 2020, Jan 31, 2020, 2020-01, 31JAN2020, Jan-2020, 1/2020,
# Friday, 31 January 2020. Codes such as 20200131 stay what they are.
_LOOKS_LIKE_A_DATE = re.compile(
    r"\s*(\d{1,4}[-/. ](\d{1,2}|[A-Za-z]{3,9})[-/. ,]+\d{1,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}|\d{4}[-/]\d{2}\s*$"
    rf"|\d{{1,2}}{_MONTH}\d{{2,4}}|{_MONTH}[-/ ]\d{{2,4}}\s*$|\d{{1,2}}/(?:19|20)\d{{2}}\s*$"
    r"|[a-z]{3,9}, [a-z\d]{1,9} [a-z\d]{1,9},? \d{4})",
    re.IGNORECASE,
)

# What pandas does not guess. Years of two digits between points would make dates of versions, 1.10.12.
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_SLASHES = (
    *(f"{days}{time}" for days in ("%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y") for time in _TIMES),
    "%m/%Y",
)
_MONTHS = (
    *(
        f"{days}{time}"
        for days in ("%d-%b-%y", "%d-%b-%Y", "%d%b%Y", "%d%b%y", "%d %b %y")
        for time in _TIMES
    ),
    *(f"{month}{mark}{year}" for month in ("%b", "%B") for mark in "- /" for year in ("%Y", "%y")),
    *("%A, %d %B %Y", "%a, %d %b %Y", "%A, %B %d, %Y", "%a, %b %d, %Y"),
)
_FURTHER = frozenset((*_SLASHES, *_MONTHS))


def find_format(texts: Sequence[str], counts: npt.NDArray[np.int64]) -> str | None:
    """The format in which at least 95% of a column's values are dates, None if there is none.

    Of several it is that in which most are. Whether day or month comes first is told by the values; where they leave it
    open, the day does between points, 5.4.2020, and else the month.

    Parameters
    ----------
    texts : sequence of str
        The distinct texts of a column.
    counts : ndarray of int64 [len(texts)]
        How often they occur.

    Returns
    -------
    str or None
        As ``strptime`` has it.
    """
    total = int(counts.sum())
    looks = np.array(
        [len(text) <= 60 and _LOOKS_LIKE_A_DATE.match(text) is not None for text in texts], dtype=bool
    )
    if total == 0 or counts[looks].sum() < LEAST_SHARE * total:
        return None
    # The order of the texts makes that of the rows irrelevant.
    dates = sorted(text for text, is_date in zip(texts, looks, strict=True) if is_date)
    by_text = dict(zip(texts, counts.tolist(), strict=True))
    weights = np.array([by_text[text] for text in dates])
    best, most = None, -1
    for form in _candidates(dates):
        read, _ = parse(dates, form)
        fitting = int(weights[~np.isnat(read)].sum())
        if fitting >= LEAST_SHARE * total and fitting > most:
            best, most = form, fitting
            if fitting == total and form not in _FURTHER:
                break
    return best


def _candidates(dates: list[str]) -> list[str]:
    sample = dates[:: max(len(dates) // _SAMPLE, 1)]
    with warnings.catch_warnings():
        # What guessing for both orders of day and month is meant to find out.
        warnings.simplefilter("ignore", UserWarning)
        found = {
            day_first: [guess_datetime_format(text, day_first) for text in sample]
            for day_first in (False, True)
        }
    guesses = [form for day_first in (False, True) for form in found[day_first] if form is not None]
    guesses.sort(key=lambda form: form.startswith("%m."))
    # Years first, and then days, are a guess that nobody writes.
    guesses.sort(
        key=lambda form: form.startswith("%Y") and "%d" in form and form.index("%d") < form.find("%m")
    )
    further = [form for form in _SLASHES if any("/" in text for text in sample)]
    further += [
        form for form in _MONTHS if any(re.search("[a-z]{3}", text, re.IGNORECASE) for text in sample)
    ]
    return list(dict.fromkeys([*guesses, *further]))
