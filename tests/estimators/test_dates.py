import warnings

import numpy as np
import pandas as pd
import pytest

from inna_tune.estimators import TableEncoder
from inna_tune.estimators.dates import _PARTS, UnreadableDateWarning, calendar_part, read_dates


def days(n=500, seed=0):
    rng = np.random.default_rng(seed)
    return pd.Timestamp("2019-03-01 00:30") + pd.to_timedelta(rng.integers(0, 24 * 1500, n), unit="h")


def fit(column, **settings):
    frame = pd.DataFrame({"d": column})
    return TableEncoder(**settings).fit(frame)


def encode(encoder, column):
    values = encoder.transform(pd.DataFrame({"d": column}))
    return dict(zip(encoder.get_feature_names_out(), values.T, strict=True))


def test_dates_are_days_and_parts_of_the_calendar():
    encoder = fit(days())
    assert list(encoder.get_feature_names_out()) == ["d", "d_year"] + [
        f"d_{part}_circular_{i}" for part in ("month", "day", "hour", "weekday") for i in range(2)
    ]
    assert encoder.sections == (10, 0, 0)
    assert np.abs(encoder.transform(pd.DataFrame({"d": days()}))).max() < 3
    ends = encode(encoder, pd.to_datetime(["2020-01-01 23:30", "2020-01-02 00:30"]))
    # Eleven at night is as near to midnight as one in the morning, December to January as January to February.
    for i, part in enumerate(("d_hour_circular_0", "d_hour_circular_1")):
        assert abs(np.diff(ends[part])[0]) < 0.6, i
    assert np.diff(ends["d"])[0] > 0


def test_the_parts_are_skrub_s():
    from skrub import DatetimeEncoder

    dates = pd.Series(days(), name="d")
    theirs = DatetimeEncoder(
        periodic_encoding="circular", add_weekday=True, add_total_seconds=False
    ).fit_transform(dates)
    assert [f"d_{part}" for part in _PARTS] == list(theirs)
    for part in _PARTS:
        np.testing.assert_array_equal(calendar_part(dates, part), theirs[f"d_{part}"])


def test_parts_that_never_vary_are_left_out():
    mondays = pd.date_range("2020-01-06", "2020-12-28", freq="7D")
    assert list(fit(mondays).get_feature_names_out()) == [
        "d", "d_month_circular_0", "d_month_circular_1", "d_day_circular_0", "d_day_circular_1",
    ]  # fmt: skip


def test_parts_that_vary_by_rounding_errors_are_left_out():
    """The cosines of Wednesday and Thursday are equal but for the last bit."""
    column = pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-01"])
    assert "d_weekday_circular_0" in fit(column).get_feature_names_out()
    assert "d_weekday_circular_1" not in fit(column).get_feature_names_out()


def test_dates_without_a_time_do_not_lose_the_hour_that_was_fitted():
    encoder = fit(days())
    midnight = encode(encoder, pd.to_datetime(["2021-05-05"]))
    assert (
        midnight["d_hour_circular_1"]
        == encode(encoder, pd.to_datetime(["2021-05-06 00:00"]))["d_hour_circular_1"]
    )


def test_seconds_are_told_apart():
    """As skrub's total_seconds in float32 would not."""
    encoder = fit(pd.Timestamp("2024-06-01 12:00") + pd.to_timedelta(range(60), unit="s"))
    assert len(encoder.get_feature_names_out()) == 1
    encoded = encode(encoder, pd.Timestamp("2024-06-01 12:00") + pd.to_timedelta(range(60), unit="s"))["d"]
    assert (np.diff(encoded) > 0).all()


def test_missing_dates_are_typical_ones_with_an_indicator():
    column = pd.Series(days())
    column[:50] = pd.NaT
    encoder = fit(column)
    assert encoder.sections == (10, 1, 0)
    encoded = encode(encoder, pd.Series([pd.NaT, column[60]]))
    assert all(encoded[name][0] == 0 for name in encoded if name != "d_missing")
    np.testing.assert_allclose(encoded["d_missing"], [0.9, -0.1], rtol=1e-6)
    assert encode(fit(column[50:]), pd.Series([None], dtype=object))["d"][0] == 0


def test_quantiles_are_for_the_days_only():
    plan = fit(days(), numeric="quantile").plan_[0]
    assert len(plan.quantiles) == 256
    # The parts stay points on a circle.
    encoded = encode(fit(days(), numeric="quantile"), days())
    plain = encode(fit(days()), days())
    np.testing.assert_array_equal(encoded["d_month_circular_0"], plain["d_month_circular_0"])
    assert abs(encoded["d"].std() - 1) < 0.03


# ---------------------------------------------------------------------- time zones


def test_parts_are_taken_in_the_time_zone_that_was_fitted():
    paris = pd.Series(days()).dt.tz_localize("UTC").dt.tz_convert("Europe/Paris")
    encoder = fit(paris)
    assert encoder.plan_[0].timezone == "Europe/Paris"
    expected = encoder.transform(pd.DataFrame({"d": paris}))
    for zone in ("UTC", "Asia/Tokyo"):
        np.testing.assert_array_equal(
            encoder.transform(pd.DataFrame({"d": paris.dt.tz_convert(zone)})), expected
        )


def test_a_time_zone_more_or_less_is_named_with_the_remedy():
    naive = pd.Series(days())
    aware = naive.dt.tz_localize("UTC")
    with pytest.raises(ValueError, match=r"'d' had a time zone.*now has none.*tz_localize\('UTC'\)"):
        encode(fit(aware), naive)
    with pytest.raises(ValueError, match=r"'d' had no time zone.*now has one.*tz_localize\(None\)"):
        encode(fit(naive), aware)


def test_dates_of_several_time_zones_are_named_with_the_remedy():
    column = pd.Series([pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-01-02")], dtype=object)
    with pytest.raises(ValueError, match=r"'d' holds dates that do not fit.*pandas\.to_datetime.*utc=True"):
        fit(column)


# ---------------------------------------------------------------------- dates written out


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M",
        "%d %b %Y",
        "%d.%m.%Y",
        "%Y/%m/%d",
        "%d-%b-%y",
        "%d%b%Y",
        "%A, %d %B %Y",
        "%d-%b-%Y %H:%M",
    ],
)
def test_strings_that_are_dates_are_read_as_such(form):
    column = pd.Series(days().strftime(form))
    encoder = fit(column)
    plan = encoder.plan_[0]
    assert (plan.kind, plan.format) == ("date", form)
    proper = fit(pd.to_datetime(column, format=form))
    np.testing.assert_array_equal(
        encoder.transform(pd.DataFrame({"d": column})),
        proper.transform(pd.DataFrame({"d": pd.to_datetime(column, format=form)})),
    )
    # As dates proper they are understood, too.
    np.testing.assert_array_equal(
        encoder.transform(pd.DataFrame({"d": pd.to_datetime(column, format=form)})),
        encoder.transform(pd.DataFrame({"d": column})),
    )


@pytest.mark.parametrize(
    "values",
    [
        ["2020-01-01", "yesterday"],
        ["2020-01-01", "2020-01-02 12:00"],
        ["25-39", "40-54"],
        ["20200101", "20200102"],
        ["2020", "2021"],
        ["1.2.3", "1.2.4"],
        ["10.0.0.1", "10.0.0.2"],
        ["12:30", "13:30"],
        ["2020-13-45", "2020-14-01"],
        ["555-12-1234", "555-12-1235"],
        ["1/1000", "3/1000"],
        ["mars-12", "juno-13"],
    ],
)
def test_strings_that_are_no_dates_stay_levels(values):
    assert fit(values * 5).plan_[0].kind == "categorical"
    assert read_dates(pd.Series(values), "d") is None


@pytest.mark.parametrize("form", ["%b-%Y", "%b-%y", "%B %Y", "%m/%Y"])
def test_months_without_a_day_are_dates(form):
    column = pd.Series(pd.date_range("2012-01-01", periods=40, freq="MS").strftime(form))
    plan = fit(column).plan_[0]
    assert (plan.kind, plan.format) == ("date", form)


def test_pandas_categories_stay_levels():
    assert fit(pd.Categorical(["2020-01-01", "2020-01-02"] * 5)).plan_[0].kind == "categorical"


def test_strings_with_offsets_are_read_in_utc():
    column = pd.Series(
        ["2020-01-01T12:00:00+02:00", "2020-06-01T12:00:00+01:00", "2020-07-01T12:00:00+02:00"]
    )
    encoder = fit(column)
    assert encoder.plan_[0].timezone == "UTC"
    expected = encoder.transform(pd.DataFrame({"d": pd.to_datetime(column, utc=True)}))
    np.testing.assert_array_equal(encoder.transform(pd.DataFrame({"d": column})), expected)


def test_strings_for_dates_that_were_proper_are_read_as_iso():
    encoder = fit(days())
    one, other = (encode(encoder, c) for c in (days(9), days(9).strftime("%Y-%m-%d %H:%M:%S")))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_unreadable_dates_count_as_missing_with_a_warning():
    column = pd.Series(days().strftime("%Y-%m-%d"))
    column[:50] = None
    encoder = fit(column)
    with pytest.warns(
        UnreadableDateWarning, match=r"'d' holds dates; 2 value\(s\), such as 'soon', .*%Y-%m-%d"
    ):
        encoded = encode(encoder, ["2020-01-01", "soon", "later", None])
    assert encoded["d"][0] != 0
    assert (encoded["d"][1:] == 0).all()
    np.testing.assert_allclose(encoded["d_missing"], [-0.1, 0.9, 0.9, 0.9], rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(encoder, ["2020-01-01", None])


# ---------------------------------------------------------------------- far dates, and few bad cells


def with_never(form, n=120):
    column = pd.Series(days(n).normalize().astype("datetime64[us]"))  # pandas 2 has nanoseconds else
    column[::4] = pd.Timestamp("9999-12-31")
    return column if form is None else column.dt.strftime(form)


@pytest.mark.parametrize("form", [None, "%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y"])
@pytest.mark.parametrize("numeric", ["scale", "quantile"])
def test_never_is_a_place_of_its_own_and_the_other_dates_keep_their_scale(form, numeric):
    column = with_never(form)
    encoder = fit(column, numeric=numeric)
    plan = encoder.plan_[0]
    assert (plan.kind, plan.far) == ("date", 0.25)
    ordinary = column[np.arange(120) % 4 != 0]
    expected, found = encode(fit(ordinary, numeric=numeric), ordinary), encode(encoder, ordinary)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    far = encode(encoder, column)["d_far"]
    np.testing.assert_allclose(far, np.where(np.arange(120) % 4 == 0, 0.75, -0.25))
    assert list(encoder.get_feature_names_out())[-1] == "d_far"


@pytest.mark.parametrize("sentinel", ["9999-12-31", "0001-01-01", "1900-01-01", "2999-12-31"])
def test_a_far_date_that_was_never_met_is_finite_and_lies_at_the_end(sentinel):
    for column in (pd.Series(days()), pd.Series(days().strftime("%Y-%m-%d"))):
        encoder = fit(column)
        ends = encode(encoder, [pd.Timestamp(column.min()), pd.Timestamp(column.max())])["d"]
        for value in (sentinel, pd.Timestamp(sentinel), pd.Timestamp(sentinel).date()):
            found = encode(encoder, pd.Series([value], dtype=object))
            assert found["d"][0] in ends
            # The month and day of "never" mean nothing.
            assert all(values[0] == 0 for name, values in found.items() if name.endswith("_circular_0"))


def test_dates_of_every_century_are_dates():
    column = pd.Series([f"{year}-0{1 + year % 9}-15" for year in range(1100, 1700, 5)])
    encoder = fit(column)
    assert (encoder.plan_[0].kind, encoder.plan_[0].far) == ("date", None)
    assert (np.diff(encode(encoder, column)["d"]) > 0).all()
    proper = pd.Series(column.to_numpy(dtype="datetime64[s]"))
    np.testing.assert_array_equal(encode(encoder, proper)["d"], encode(encoder, column)["d"])


def test_bad_cells_among_dates_are_missing():
    column = pd.Series([*days(99).strftime("%d.%m.%Y"), "unknown"])
    encoder = fit(column)
    assert (encoder.plan_[0].kind, encoder.plan_[0].format) == ("date", "%d.%m.%Y")
    assert encoder.plan_[0].indicator == pytest.approx(0.01)
    with pytest.warns(UnreadableDateWarning, match=r"1 value\(s\), such as 'unknown'"):
        encode(encoder, column)


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ("%d.%m.%Y", "%d.%m.%Y"),
        ("%m/%d/%Y", "%m/%d/%Y"),
        ("%Y-%m-%d", "%Y-%m-%d"),
        ("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M %p"),
        ("%d/%m/%y", "%d/%m/%y"),
        ("%b %d, %Y", "%b %d, %Y"),
    ],
)
def test_the_format_is_that_of_the_whole_column_and_is_kept(form, found):
    """Of the days alone that leave it open nothing is guessed anew."""
    column = pd.Series(pd.date_range("2020-01-01", periods=100, freq="53h").strftime(form))
    encoder = fit(column)
    assert encoder.plan_[0].format == found
    whole = encode(encoder, column)["d"]
    for i in range(5):
        assert encode(encoder, column.iloc[[i]])["d"][0] == whole[i]


def test_days_come_first_between_points_where_nothing_tells():
    assert fit(pd.Series(["05.04.2020", "06.04.2020", "07.05.2020"])).plan_[0].format == "%d.%m.%Y"
    assert fit(pd.Series(["05/04/2020", "06/04/2020", "07/05/2020"])).plan_[0].format == "%m/%d/%Y"


def test_objects_of_several_zones_are_read_in_utc():
    moments = [
        pd.Timestamp("2020-01-01 12:00", tz=zone) + pd.Timedelta(days=i) for i in range(5) for zone in ZONES
    ]
    encoder = fit(pd.Series(moments, dtype=object))
    assert encoder.plan_[0].timezone == "UTC"
    in_utc = pd.Series([m.tz_convert("UTC") for m in moments])
    expected, found = encode(encoder, in_utc), encode(encoder, pd.Series(moments, dtype=object))
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


ZONES = ("UTC", "Asia/Tokyo", "America/New_York")


def test_texts_and_objects_without_a_zone_are_read_in_the_zone_that_was_fitted():
    paris = pd.Series(days()).dt.tz_localize("Europe/Paris", ambiguous=True, nonexistent="shift_forward")
    encoder = fit(paris)
    expected = encode(encoder, paris[:9])
    naive = paris[:9].dt.tz_localize(None)
    for column in (
        naive.astype(object),
        naive.astype(str),
        paris[:9].dt.tz_convert("Asia/Tokyo").astype(str),
    ):
        found = encode(encoder, column)
        assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_a_zone_among_texts_that_had_none_is_missing_and_counted():
    encoder = fit(pd.Series(days()))
    with pytest.warns(
        UnreadableDateWarning, match=r"1 value\(s\), such as '2020-01-01T12:00Z', .*without a time zone"
    ):
        found = encode(encoder, ["2020-01-01T12:00Z", "2020-01-01T12:00"])
    assert found["d"][0] == 0 != found["d"][1]
