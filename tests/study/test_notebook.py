"""In a notebook: what estimators and searches look like, tables ready to plot, a bar that moves."""

import io
import logging

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from pandas.api import types
from sklearn.base import clone
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.study import ProgressBar
from tests.browser import Browser, overflow

SMALL = {"hidden_layer_sizes": (8,), "n_members": 1, "max_epochs": 8}


@pytest.fixture(scope="module")
def data():
    return load_iris(return_X_y=True, as_frame=True)


def searched(data, n_trials=3, **options):
    net = InnaClassifier(**SMALL)
    return InnaSearchCV(net, n_trials=n_trials, cv=2, random_state=0, **options).fit(*data)


# ---------------------------------------------------------------------- what they look like


def test_estimators_and_searches_look_like_those_of_scikit_learn(data, tmp_path):
    net = InnaClassifier(**SMALL)
    search = InnaSearchCV(net, n_trials=3)
    assert "estimator: InnaClassifier" in search._repr_html_()
    assert "Not fitted" in search._repr_html_()
    fitted = searched(data)
    assert "best_estimator_: InnaClassifier" in fitted._repr_html_()
    assert "Not fitted" not in fitted._repr_html_()
    assert f"{fitted.best_params_['lr']:.5f}"[:6] in fitted._repr_html_()
    pages = {"net": net, "search": search, "fitted": fitted, "regressor": InnaRegressor(lr=0.1)}
    with Browser() as browser:
        for name, thing in pages.items():
            path = tmp_path / f"{name}.html"
            path.write_text(
                f"<!DOCTYPE html><meta charset='utf-8'><link rel='icon' href='data:,'>{thing._repr_html_()}",
                encoding="utf-8",
            )
            browser.open(path.as_uri())
            assert browser.errors == []
            assert type(thing).__name__ in browser.text()
            assert overflow(browser) == []


# ---------------------------------------------------------------------- tables ready to plot


def test_histories_and_trials_are_tables_of_numbers(data):
    search = searched(data)
    history = search.best_estimator_.history_
    trials = search.trials_dataframe()
    for frame, numbers in (
        (history, ["epoch", "member"]),
        (trials, ["number", "score", "score_std", "seconds", "epochs", "alpha", "beta", "lr", "dropout"]),
    ):
        assert isinstance(frame, pd.DataFrame)
        assert frame.columns.is_unique
        assert isinstance(frame.index, pd.RangeIndex)
        assert all(types.is_numeric_dtype(frame[name]) for name in numbers)
    assert types.is_datetime64_any_dtype(trials["begun"])
    assert len(trials) == 3
    assert trials.loc[trials["score"].idxmax(), "number"] == search.study_.best_trial.number
    losses = [name for name in history.columns if name.endswith("loss")]
    assert losses
    axes = history.plot(x="epoch", y=losses)
    assert len(axes.lines) == len(losses)
    axes = trials.plot.scatter("alpha", "beta", c="score", logx=True, logy=True)
    assert len(axes.collections[0].get_offsets()) == 3
    plt.close("all")


# ---------------------------------------------------------------------- progress


def test_the_bar_counts_trials_and_names_the_best(data):
    file = io.StringIO()
    bar = ProgressBar(3, file=file, mininterval=0, ascii=True)
    search = searched(data, callbacks=[bar])
    last = file.getvalue().rstrip().split("\r")[-1]
    assert "3/3" in last
    assert f"best {search.study_.best_value:.5g} (trial {search.study_.best_trial.number})" in last
    assert "epoch 0-1 of 8" in file.getvalue()
    assert bar._bar is None


def test_the_bar_of_a_resumed_study_begins_where_it_stands(data, tmp_path):
    where = {"storage": f"sqlite:///{tmp_path}/studies.db", "study_name": "iris", "resume": True}
    searched(data, 2, **where)
    file = io.StringIO()
    searched(data, 4, callbacks=[ProgressBar(4, file=file, mininterval=0, ascii=True)], **where)
    assert "2/4" in file.getvalue()
    assert "0/4" not in file.getvalue()
    assert "4/4" in file.getvalue()


def test_a_bar_without_an_end_and_one_that_is_copied(data):
    file = io.StringIO()
    bar = ProgressBar(file=file, mininterval=0)
    search = InnaSearchCV(InnaClassifier(**SMALL), n_trials=2, cv=2, callbacks=[bar])
    search.fit(*data)
    assert "2trial" in file.getvalue()
    bar.close()
    bar.close()
    clone(InnaSearchCV(InnaClassifier(**SMALL), callbacks=[ProgressBar(2)]))


def test_verbose_logs_every_trial(data, caplog):
    with caplog.at_level(logging.INFO, logger="inna_tune"):
        searched(data, 2)
        assert not [r for r in caplog.records if r.name.startswith("inna_tune")]
        searched(data, 2, verbose=1)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("inna_tune")]
    assert sum(line.startswith("trial ") for line in said) == 2
