import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from inna_tune.tables.problem import TableError, find_task, make_problem
from inna_tune.tables.reading import read_table


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.normal(size=40),
            "colour": rng.choice(["red", "blue"], 40),
            "grade": rng.integers(0, 5, 40),
            "price": rng.normal(size=40),
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_are_read_as_written(frame, suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    read, target = read_table(str(path))
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)
    assert target is None


@pytest.mark.parametrize(
    ("name", "load", "task"),
    [
        ("breast_cancer", load_breast_cancer, "binary"),
        ("iris", load_iris, "multiclass"),
        ("wine", load_wine, "multiclass"),
        ("digits", load_digits, "multiclass"),
        ("diabetes", load_diabetes, "regression"),
    ],
)
def test_tables_of_scikit_learn(name, load, task):
    frame, target = read_table(f"sklearn:{name}")
    problem = make_problem(frame, target)
    X, y = load(return_X_y=True)
    assert problem.X.shape == X.shape
    assert problem.task == task
    if task == "regression":
        np.testing.assert_array_equal(problem.y, y)
    else:
        assert problem.y.nunique() == len(np.unique(y))
    assert task in problem.description


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b", "a"], "binary"),
        (["a", "b", "c"], "multiclass"),
        ([True, False, True], "binary"),
        ([0, 1, 1], "binary"),
        ([0.0, 1.0, 1.0], "binary"),
        ([0.5, 1.5, 1.5], "regression"),
        ([1, 2, 3], "multiclass"),
        ([1.0, 2.5, 3.0], "regression"),
        (list(range(50)), "regression"),
        ([1e300, np.inf, 2.0], "regression"),
    ],
)
def test_task_found(values, task):
    assert find_task(pd.Series(values)) == task


def test_rows_without_a_target_are_dropped_and_counted(frame):
    frame.loc[[3, 7], "colour"] = None
    problem = make_problem(frame, "colour")
    assert problem.dropped_rows == 2
    assert len(problem.X) == len(problem.y) == 38
    assert not problem.y.isna().any()


def test_the_task_can_be_said(frame):
    assert make_problem(frame, "grade").task == "multiclass"
    assert make_problem(frame, "grade", task="regression").task == "regression"


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "cannot be read as a csv"),
        ("t.csv", "a,b\n", "empty table"),
        ("t.csv", "a,b", "header of 2 columns and no rows"),
        ("t.csv", "a,b,a\n1,2,3\n", r"repeats column names: \['a'\]"),
        ("t.csv", b"\xff\xfe\x00\x80\x81" * 50, "cannot be read as a csv"),
        ("t.csv", "a,b\n1,2\n1,2,3\n", "cannot be read as a csv"),
        ("t.parquet", "not parquet", "cannot be read as a parquet"),
        ("t.xlsx", "x", "cannot be read as a excel"),
        ("t.doc", "x", "neither .csv, .tsv, .parquet"),
    ],
)
def test_bad_files_are_named(name, content, message, tmp_path):
    path = write(tmp_path, name, content)
    with pytest.raises(TableError, match=message) as caught:
        read_table(path)
    assert name in str(caught.value)


def test_bad_sources(tmp_path):
    with pytest.raises(TableError, match="No such file: nothing.csv"):
        read_table("nothing.csv")
    with pytest.raises(TableError, match="folder"):
        read_table(str(tmp_path))
    with pytest.raises(TableError, match="'cancer'; there are breast_cancer"):
        read_table("sklearn:cancer")


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        ({}, "color", "no column 'color'. Did you mean 'colour'"),
        ({}, "zzz", "no column 'zzz'. The columns are: size"),
        ({}, None, "--target"),
        ({"price": np.nan}, "price", "missing in every row"),
        ({"colour": "red"}, "colour", "one class only, 'red'"),
        ({"price": 3.0}, "price", "one class only|same value"),
        ({"price": [np.inf, *np.arange(39.5, 0.5, -1)]}, "price", "1 infinite"),
        ({"id": [f"row {i}" for i in range(40)]}, "id", "identifier"),
        ({"day": pd.date_range("2020-01-01", periods=40)}, "day", "convert"),
    ],
)
def test_bad_targets_are_named(frame, change, target, message):
    with pytest.raises(TableError, match=message):
        make_problem(frame.assign(**change), target)


def test_a_task_that_does_not_fit_is_refused(frame):
    with pytest.raises(TableError, match="text"):
        make_problem(frame, "colour", task="regression")
    with pytest.raises(TableError, match="5 classes.*multiclass"):
        make_problem(frame, "grade", task="binary")
    with pytest.raises(TableError, match="task='guess'"):
        make_problem(frame, "grade", task="guess")
    with pytest.raises(TableError, match="nothing to predict it from"):
        make_problem(frame[["grade"]], "grade")


def test_labels_of_bytes_are_their_texts():
    frame = pd.DataFrame({"x": range(20), "y": [b"a", b"b"] * 10})
    assert make_problem(frame, "y").y.unique().tolist() == ["a", "b"]


def test_a_single_class_is_shown_as_it_is_written():
    with pytest.raises(TableError, match=r"one class only, 1\."):
        make_problem(pd.DataFrame({"x": range(20), "y": 1}), "y")
