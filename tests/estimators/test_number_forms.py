import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inna_tune.estimators.number_forms import (
    NumberForm,
    find_form,
    has_leading_zeros,
    read_form,
)


def numbers_of(texts):
    """The numbers that texts mean and their form, or None."""
    form = find_form(texts)
    return None if form is None else (read_form(texts, form), form)


@pytest.mark.parametrize(
    ("texts", "numbers", "form"),
    [
        (["1234.5", "-2", "+3e2", ".5"], [1234.5, -2, 300, 0.5], NumberForm()),
        (["1,234.50", "12.00", "1,234,567.00"], [1234.5, 12, 1234567], NumberForm(".", ",")),
        (["1234,50", "12,00", "7"], [1234.5, 12, 7], NumberForm(",")),
        (["1.234,50", "12,00", "1.234.567"], [1234.5, 12, 1234567], NumberForm(",", ".")),
        (["1 234", "56", "1\u00a0234\u202f567"], [1234, 56, 1234567], NumberForm(".", " ")),
        (["1 234,5", "56,25"], [1234.5, 56.25], NumberForm(",", " ")),
        (["1'234.5", "1’000"], [1234.5, 1000], NumberForm(".", "'")),
        (["12,34,567.5", "1,234"], [1234567.5, 1234], NumberForm(".", ",")),
        (["$1234.50", "$ 12", "3", "-$4", "$-5"], [1234.5, 12, 3, -4, -5], NumberForm(unit="$")),
        (["1.234,50 €", "€ 12", "(3,00) €", "€(4)"], [1234.5, 12, -3, -4], NumberForm(",", ".", "€")),
        (["USD 1,234", "USD 12.5"], [1234, 12.5], NumberForm(".", ",", "USD")),
        (["12 %", "7.5%", "-3%"], [12, 7.5, -3], NumberForm(unit="%")),
        (["(1,234.50)", "12", "3.50-", "−4"], [-1234.5, 12, -3.5, -4], NumberForm(".", ",")),
        (["12,50 zł", "3 zł"], [12.5, 3], NumberForm(",", unit="zł")),
        (["R$ 1.234,50", "-R$ 2,00"], [1234.5, -2], NumberForm(",", ".", "R$")),
        (["US$12.50", "US$3"], [12.5, 3], NumberForm(unit="US$")),
        (["Rs. 500", "rs. 7"], [500, 7], NumberForm(unit="Rs.")),
        (["1.50 eur", "2 EUR", "3 eur"], [1.5, 2, 3], NumberForm(unit="eur")),
        (["1,234", "5,678"], [1234, 5678], NumberForm(".", ",")),
        (["1,234", "0,678"], [1.234, 0.678], NumberForm(",")),
        (["1.234", "5.678"], [1.234, 5.678], NumberForm()),
        (["1.234.567", "5.678"], [1234567, 5678], NumberForm(",", ".")),
    ],
)
def test_numbers_are_read_in_the_form_they_are_written_in(texts, numbers, form):
    found = numbers_of(pd.Series(texts, dtype="str"))
    assert found is not None
    assert found[1] == form
    np.testing.assert_array_equal(found[0], numbers)


def test_what_is_left_open_is_settled_by_the_decimal_sign_of_the_table():
    texts = pd.Series(["1,234", "5,678"])
    assert find_form(texts, decimal=",") == NumberForm(",")
    assert find_form(texts, decimal=".") == NumberForm(".", ",")
    assert find_form(pd.Series(["1,234.5"]), decimal=",") == NumberForm(".", ",")


@pytest.mark.parametrize(
    "texts",
    [
        ["A1", "02"],
        ["2020-01-31", "2020-02-01"],
        ["31.12.2020", "01.02.2021"],
        ["10:30", "11:15"],
        ["10.0.0.1", "10.0.0.2"],
        ["12%", "0.12"],
        ["$5", "€6"],
        ["(5", "6)"],
        ["1,2,3", "4,5,6"],
        ["5 kg", "6 kg"],
        ["--5", "6"],
        ["1-", "2-", "3-"],  # grades
        ["1-", "2", "2+"],
        ["", " "],
        ["inf", "nan"],
        [None, None],
    ],
)
def test_what_is_no_number_is_none(texts):
    assert numbers_of(pd.Series(texts, dtype="str")) is None


@pytest.mark.parametrize("n_bad", [5, 6])
def test_five_in_a_hundred_may_be_something_else(n_bad):
    texts = pd.Series([f"{i},5" for i in range(100 - n_bad)] + [f"none {i}" for i in range(n_bad)])
    found = numbers_of(texts)
    assert (found is None) == (n_bad == 6)
    if found is not None:
        assert np.isnan(found[0]).sum() == 5


def test_missing_values_count_neither_way():
    numbers, form = numbers_of(pd.Series(["1,5", None, None, None, "2,5"]))
    assert form == NumberForm(",")
    np.testing.assert_array_equal(numbers, [1.5, np.nan, np.nan, np.nan, 2.5])


FORMS = [
    NumberForm(decimal, thousands, unit)
    for decimal, thousands in [(".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", "'")]
    for unit in ("", "$", "%", "CHF")
]


def write(number, form):
    text = f"{number:,.2f}".replace(",", "t").replace(".", form.decimal).replace("t", form.thousands)
    return f"{text} {form.unit}".strip() if form.unit != "$" else f"${text}"


@given(
    st.sampled_from(FORMS),
    st.lists(st.integers(-(10**10), 10**10).map(lambda n: n / 100), min_size=1, max_size=30),
)
def test_what_a_form_wrote_is_read_to_the_last_bit(form, numbers):
    texts = pd.Series([write(x, form) for x in numbers], dtype="str")
    np.testing.assert_array_equal(read_form(texts, form), numbers)
    found = numbers_of(texts)
    assert found is not None
    np.testing.assert_array_equal(found[0], numbers)


@given(st.lists(st.text(alphabet="0123456789.,-+()%$€ '’eE", max_size=12), min_size=1, max_size=20))
def test_any_text_is_read_or_refused_and_a_row_does_not_depend_on_the_others(texts):
    column = pd.Series(texts, dtype="str")
    found = numbers_of(column)
    if found is None:
        return
    assert np.isfinite(found[0]).sum() >= 0.95 * len(texts)
    alone = [read_form(column.iloc[[i]], found[1])[0] for i in range(len(texts))]
    np.testing.assert_array_equal(found[0], alone)


def test_codes_are_told_from_numbers_by_the_zeros_before_them():
    assert has_leading_zeros(pd.Series(["01", "02", None, "10"]))
    assert has_leading_zeros(pd.Series(["01", "1", "100"]))
    assert not has_leading_zeros(pd.Series(["1", "2", "10"]))
    assert not has_leading_zeros(pd.Series(["0", "1"]))
    assert not has_leading_zeros(pd.Series(["001.5", "012.5"]))
    assert not has_leading_zeros(pd.Series([*map(str, range(1, 200)), "007"]))


def test_a_form_that_is_none_is_refused():
    for wrong in ({"decimal": ";"}, {"thousands": "x"}, {"unit": "kg"}, {"decimal": ",", "thousands": ","}):
        with pytest.raises(ValueError, match="no form of a number"):
            NumberForm(**wrong)
