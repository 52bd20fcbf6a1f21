"""``inna-tune columns``, and the way of a schema from fit to predict."""

import json

import numpy as np
import pandas as pd
import pytest

import inna_tune
from tests.test_cli import SMALL, run


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    n = 60
    frame = pd.DataFrame(
        {
            "price": [f"{v:.2f}".replace(".", ",") for v in rng.uniform(1, 99, n)],
            "code": rng.choice(["01", "02", "A1"], n),
            "y": pd.array(rng.integers(0, 2, n), dtype="Int64"),
            "z": rng.normal(size=n),
        }
    )
    frame.loc[::10, "y"] = pd.NA
    frame.to_csv(tmp_path / "t.csv", sep=";")
    frame.head(3).to_csv(tmp_path / "new.csv", sep=";", index=False)
    return tmp_path


def test_columns_are_shown(folder):
    shown = run(folder, "columns", "t.csv", "--target", "y").stdout
    assert "number, written 1234,5" in shown
    assert "numbers the rows" in shown
    assert "binary classification" in shown
    found = json.loads(run(folder, "columns", "t.csv", "--target", "y", "--json").stdout)
    assert [view["name"] for view in found["columns"]] == ["Unnamed: 0", "price", "code", "y", "z"]
    assert found["n_rows"] == 54
    assert "price" in run(folder, "columns", "t.csv").stdout
    assert "'yy'" in run(folder, "columns", "t.csv", "--target", "yy", code=2).stderr


def test_fit_says_it_in_a_line_the_report_shows_it_and_predict_reads_by_it(folder):
    done = run(folder, "fit", "t.csv", "--target", "y", "--trials", "1", *SMALL).stdout
    assert "Columns: 5 columns: " in done
    assert "left out: 'Unnamed: 0' (numbers the rows)" in done
    assert "taken as" not in done
    run(folder, "report", "t")
    assert "number, written 1234,5" in (folder / "t.html").read_text(encoding="utf-8")
    schema = inna_tune.load(folder / "t.inna").schema_
    assert schema.names == ["price", "code", "z"]
    assert schema["price"].form.decimal == ","
    run(folder, "predict", "t.inna", "new.csv", "-o", "all.csv")
    predicted = pd.read_csv(folder / "all.csv", dtype=str)
    assert list(predicted) == ["prediction", "probability_0", "probability_1"]
    assert set(predicted["prediction"]) <= {"0", "1"}
    (folder / "one.csv").write_text('z,code,price\n0.5,01,"3,5"\n0.5,01,three\n')
    said = run(folder, "predict", "t.inna", "one.csv", "-o", "one_out.csv").stderr
    assert "Column 'price': 1 value is not a number written as '1234,5'" in said
    assert len(pd.read_csv(folder / "one_out.csv")) == 2


def test_several_targets_go_all_the_way(folder):
    text = (folder / "t.csv").read_text().replace("price", "cost")
    (folder / "two.csv").write_text(text)
    words = ("fit", "two.csv", "--target", "cost", "--target", "z", "--trials", "1", "-v", *SMALL)
    done = run(folder, *words).stdout
    assert "regression of 2 targets: cost, z" in done
    assert "taken as" in done
    assert "--target cost --target z" in done
    run(folder, "predict", "two.inna", "two.csv", "-o", "out.csv")
    assert list(pd.read_csv(folder / "out.csv")) == ["prediction_cost", "prediction_z"]
    run(folder, "report", "two")
    compare = ("compare", "two.csv", "--target", "cost", "--target", "z", "--trials", "1")
    assert "one target" in run(folder, *compare, code=2).stderr
    assert "named twice" in run(folder, "fit", "two.csv", "--target", "z", "--target", "z", code=2).stderr
