"""What columns are worth: as scikit-learn measures it, within its time, and kept in the study."""

import json

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression

from inna_tune import InnaClassifier, clock, plots
from inna_tune.records.heldout import HeldOut, record_held_out, summarize_held_out
from inna_tune.records.importance import ColumnImportance, Importances, column_importances
from inna_tune.records.record import StudyRecord
from inna_tune.records.wording import columns_worth

RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(400, 4)), columns=["strong", "weak", "nothing", "less"])
SIGNAL = 3 * X["strong"] + 0.5 * X["weak"] + 1.5 * X["less"]


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_as_scikit_learn_measures_it(task):
    if task == "regression":
        y, model, scorer = SIGNAL + RNG.normal(size=400), LinearRegression(), "neg_root_mean_squared_error"
    else:
        y = np.where(SIGNAL + RNG.normal(size=400) > 0, "yes", "no")
        model, scorer = LogisticRegression(), "neg_log_loss"
    model.fit(X[:200], y[:200])
    found = column_importances(model, X[200:], y[200:], n_repeats=30, seconds=1e9)
    theirs = permutation_importance(model, X[200:], y[200:], scoring=scorer, n_repeats=30, random_state=1)
    assert (found.rows, found.measured, found.columns) == (200, 4, 4)
    ours = {each.column: each for each in found.best}
    for name, mean in zip(X.columns, theirs.importances_mean, strict=True):
        assert ours[name].change == pytest.approx(mean, abs=3 * ours[name].error + 1e-9)
    assert [each.column for each in found.best] == ["strong", "less", "weak", "nothing"]
    assert found.metric == ("RMSE" if task == "regression" else "log-loss")


def test_any_kind_of_column_is_shuffled_and_the_table_stays():
    table = pd.DataFrame(
        {
            "text": pd.Series(RNG.choice(["a", "b"], 200)),
            "category": pd.Categorical(RNG.choice(["u", "v", "w"], 200)),
            "date": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 999, 200), unit="D"),
            "gaps": np.where(RNG.random(200) < 0.3, np.nan, RNG.normal(size=200)),
        }
    )
    y = table["text"].to_numpy() == "a"
    net = InnaClassifier(hidden_layer_sizes=(8,), n_members=1, max_epochs=8, random_state=0).fit(table, y)
    before = table.copy(deep=True)
    found = column_importances(net, table, y, n_repeats=2, seconds=1e9)
    pd.testing.assert_frame_equal(table, before)
    assert found.best[0].column == "text"
    assert found.best[0].change > 5 * found.best[0].error > 0
    again = column_importances(net, table, y, n_repeats=2, seconds=1e9)
    assert again == found


class Counting(LinearRegression):
    """Every prediction takes a second by the clock of deadlines."""

    seconds = 0.0

    def predict(self, X):
        type(self).seconds += 1.0
        return np.zeros(len(X))


@pytest.mark.parametrize(("seconds", "measured"), [(3.5, 3), (1e9, 50)])
def test_time_bounds_it(seconds, measured, monkeypatch):
    Counting.seconds = 0.0
    monkeypatch.setattr(clock, "now", lambda: Counting.seconds)
    wide = pd.DataFrame(RNG.normal(size=(9000, 50)))
    found = column_importances(Counting(), wide, RNG.normal(size=9000), n_repeats=2, seconds=seconds)
    assert found.rows == 2000
    # Eight tables of 2,000 rows are predicted at once; the first prediction is that of the table as it is.
    assert found.measured == (50 if measured == 50 else measured * 8)
    assert found.columns == 50
    assert column_importances(Counting(), wide, RNG.normal(size=9000), seconds=0.5) is None


def test_where_nothing_can_be_measured():
    model = DummyRegressor().fit(X, SIGNAL)
    assert column_importances(model, X, np.column_stack([SIGNAL, SIGNAL])) is None
    assert column_importances(model, X[:1], SIGNAL[:1]) is None
    constant = column_importances(model, X, np.full(len(X), SIGNAL.mean()))
    assert all(each.change == pytest.approx(0, abs=1e-9) for each in constant.best)
    known = LogisticRegression().fit(X, SIGNAL > 0)
    assert column_importances(known, X, np.full(len(X), "stranger", dtype=object)) is None


MADE = Importances(
    "RMSE", 90, 4, 9, (ColumnImportance("<b>rooms</b>", 2.5, 0.25), ColumnImportance("age", 0.01, 0.02))
)


def summary(importances):
    predicted = np.arange(50.0)

    class Model:
        def predict(self, X):
            return predicted

    return summarize_held_out(Model(), np.zeros((50, 1)), predicted + 1, importances=importances)


def test_a_study_keeps_them_and_shows_them():
    study = optuna.create_study()
    record_held_out(study, summary(MADE))
    found = StudyRecord(study).held_out
    assert found.importances == MADE
    assert columns_worth(found) == "<b>rooms</b> (+2.5 ± 0.2): RMSE that is added when they are shuffled"
    figure = plots.column_importances(study)
    assert "rooms" in figure.get_label()
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["age", "<b>rooms</b>"]


@pytest.mark.parametrize(
    "change",
    [
        {"best": "all"},
        {"best": [{"column": "a"}]},
        {"best": [{"column": "a", "change": float("nan"), "error": 1.0}]},
        {"best": [{"column": "a", "change": 1.0, "error": -1.0}]},
        {"measured": 10},
        {"rows": 0},
        {"rows": "many"},
        {"metric": "$\\frac$"},
    ],
)
def test_what_makes_no_sense_is_none(change):
    data = json.loads(json.dumps(summary(MADE).to_json()))
    assert HeldOut.from_json(data).importances == MADE
    found = HeldOut.from_json(data | {"importances": data["importances"] | change})
    assert found is None or found.importances is None
    assert HeldOut.from_json(data | {"importances": None}).importances is None
    with pytest.raises(plots.NothingToPlotError, match="no-importances"):
        plots.column_importances(summary(None))
