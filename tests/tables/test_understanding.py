import re

import numpy as np
import pandas as pd
import pytest

from inna_tune.estimators.schema import TableSchema
from inna_tune.tables import regrets
from inna_tune.tables.problem import is_index, make_problem
from inna_tune.tables.reading import read
from inna_tune.tables.regrets import find_leaks, share_of_copies
from inna_tune.tables.understanding import Understanding, describe_values, understand

N = 120


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": np.where(rng.random(N) < 0.2, np.nan, rng.normal(size=N)),
            "town": rng.choice(["Aix", "Bonn", "Cork"], N),
            "y": rng.integers(0, 2, N),
        }
    )


def views(frame, target="y", **more):
    problem = make_problem(frame, target, **more)
    return understand(frame, TableSchema.of_frame(frame), problem)


def test_every_column_is_told(frame, tmp_path):
    frame["price"] = [f"{v:,.2f} €" for v in np.linspace(1, 9000, N)]
    frame["day"] = pd.date_range("2020-01-31", periods=N).strftime("%d.%m.%Y")
    frame["same"] = "x"
    frame["rate"] = np.where(np.arange(N) % 9 == 0, "?", (np.arange(N) / 7).astype(str))
    frame.to_csv(tmp_path / "t.csv")
    table = read(str(tmp_path / "t.csv"))
    found = understand(table.frame, table.schema, make_problem(table.frame, "y"))
    told = {view.name: view for view in found.columns}
    assert told["Unnamed: 0"].left_out == "numbers the rows"
    assert (told["size"].taken_as, told["size"].missing) == ("number", frame["size"].isna().sum())
    assert told["town"].taken_as == "levels"
    assert told["town"].values.startswith("3 levels: ")
    assert told["price"].taken_as == "number, written €1,234.5"
    assert told["price"].values == "1 to 9000"
    assert told["day"].taken_as == "date, written %d.%m.%Y"
    assert told["day"].example == "31.01.2020"
    assert told["same"].left_out == "one value only"
    assert told["rate"].taken_as == "number, '?' is missing"
    assert told["y"].taken_as == "target"
    assert found.summary.startswith("8 columns: 3 as number, ")
    assert "left out: 'Unnamed: 0' (numbers the rows), 'same' (one value only)" in found.summary


def test_it_comes_back_from_json(frame):
    found = views(frame)
    assert Understanding.from_json(found.to_json()) == found
    assert len(Understanding.from_json(found.to_json(most=1)).columns) == 1
    for none in (None, [], {}, {"columns": [{"name": 1}]}):
        assert Understanding.from_json(none) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": np.arange(N)}, "'row' counts the rows"),
        ({"row": np.arange(1, N + 1)}, "'row' counts the rows"),
        ({"key": [f"c{i * 7919 % 1000:04}" for i in range(N)]}, "'key' has another value in every row"),
        ({"key": np.random.default_rng(1).permutation(10**6)[:N]}, "'key' has another value in every row"),
    ],
)
def test_ids_and_counters_are_told(frame, change, message):
    assert any(message in warning for warning in views(frame.assign(**change)).warnings)


def test_an_ordinary_table_gives_no_warning(frame):
    frame["note"] = [f"a word and number {i}" for i in range(N)]
    frame["day"] = pd.date_range("2020-01-01", periods=N, freq="h")
    assert views(frame).warnings == ()


def test_a_column_that_tells_the_target_is_told_and_only_it(frame):
    problem = make_problem(frame.assign(paid=frame["y"].map({0: "open", 1: "paid"}), z=frame["y"] * 3.5), "y")
    assert [name for name, _ in find_leaks(problem)] == ["paid", "z"]
    assert any(
        "'paid' alone gives the target away" in w for w in views(problem.X.assign(y=problem.y)).warnings
    )
    value = frame.assign(y=frame["size"].fillna(0) + np.arange(N))
    leaks = find_leaks(make_problem(value.assign(copy=value["y"] * 2 + 1), "y"))
    assert [name for name, _ in leaks] == ["copy"]


def test_rows_of_few_numbers_are_no_copies_by_chance(frame):
    assert share_of_copies(pd.DataFrame({"z": np.random.default_rng(0).normal(size=500)})) == 0


def test_copies_of_rows_are_counted_to_three_digits(frame):
    X = frame.drop(columns="y").assign(z=np.linspace(1, 2, N))
    again = X.head(12).assign(z=X["z"].head(12) * (1 + 1e-7))
    assert share_of_copies(X) < 0.2
    assert share_of_copies(pd.concat([X, X])) >= 0.5
    near = share_of_copies(pd.concat([X.iloc[::10], again.iloc[::10]]))
    assert near == pytest.approx(2 / 14)
    doubled = pd.concat([frame, frame], ignore_index=True).assign(
        z=lambda f: np.tile(np.linspace(1, 9, N), 2)
    )
    assert any("50% of the rows are the same" in w for w in views(doubled).warnings)


@pytest.mark.parametrize(
    ("y", "more", "message"),
    [
        (np.arange(N) % 30, {}, "30 different whole numbers.*--task multiclass"),
        (np.arange(N) % 15, {}, "15 labels that look like numbers.*--task regression"),
        ([f"{i % 15:02}" for i in range(N)], {}, "15 labels that look like numbers.*write them as numbers"),
        (["a", *["b", "c"] * 59, "d"], {}, "2 classes of one row.*'a', 'd'"),
    ],
)
def test_odd_targets_are_told(frame, y, more, message):
    assert any(re.search(message, w) for w in views(frame.assign(y=y), **more).warnings)


@pytest.mark.parametrize(
    ("name", "values", "is_one"),
    [
        ("Unnamed: 0", [0, 1, 2, 3], True),
        ("Unnamed: 0", [3, 0, 17, 2], True),
        ("Unnamed: 0", [0, 1, 0, 1], True),
        ("Unnamed: 0", [0, 0, 0, 0, 1], False),
        ("Unnamed: 3", [0.5, 1, 2, 3], False),
        ("Unnamed: 0", ["a", "b", "c", "d"], False),
        ("index", [2, 0, 1, 3], True),
        ("index", [100, 250, 330, 410], False),
        ("row", [0, 1, 2, 3], False),
    ],
)
def test_an_index_that_pandas_wrote_is_known(name, values, is_one):
    assert is_index(pd.Series(values, name=name)) == is_one


def test_an_index_is_no_feature_and_that_is_said(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv")
    problem = make_problem(read(str(tmp_path / "t.csv")).frame, "y")
    assert list(problem.X) == ["size", "town"]
    assert any("'Unnamed: 0'" in remark for remark in problem.remarks)


def test_several_targets_are_numbers_and_named_once(frame):
    frame["z"] = np.where(np.arange(N) < 3, np.nan, np.arange(N))
    problem = make_problem(frame, ["z", "y"])
    assert (problem.task, problem.targets, problem.dropped_rows) == ("regression", ("z", "y"), 3)
    assert problem.y.shape == (N - 3, 2)
    pd.testing.assert_frame_equal(make_problem(frame, "z, y").y, problem.y)
    assert make_problem(frame.rename(columns={"town": "z,y"}), "z,y").targets == ("z,y",)
    for target, message in [
        (["y", "y"], "'y' is named twice"),
        ("y,y", "'y' is named twice"),
        (["y", "town"], "'town' is text"),
        (["y", "tow"], "Did you mean 'town'"),
        ([], "--target"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_problem(frame, target)


def test_where_time_is_short_not_every_column_is_tried_alone(monkeypatch):
    tried = []
    monkeypatch.setattr(regrets, "cross_val_score", lambda *args, **options: tried.append(1) or [0.0])
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 12))).add_prefix("x")
    frame["y"] = np.arange(60) % 2
    problem = make_problem(frame, "y")
    schema = TableSchema.of_frame(frame)
    assert not any("tried alone" in w for w in understand(frame, schema, problem, seconds=1e6).warnings)
    assert len(tried) == 12
    found = understand(frame, schema, problem, seconds=-1.0)
    assert len(tried) == 12
    assert any("Not every column was tried alone" in warning for warning in found.warnings)


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_date_after_the_year_9999_is_shown(unit):
    far = pd.Series(np.array(["2024-02-29", "33658-09-27T01:46:40"], dtype=f"datetime64[{unit}]"))
    assert describe_values(far) == "2024-02-29 to 33658-09-27"
    zoned = pd.Series(pd.to_datetime(["2024-02-29 10:00", "2025-01-01 12:30"])).dt.tz_localize("Asia/Tokyo")
    assert describe_values(zoned) == "2024-02-29 to 2025-01-01"
