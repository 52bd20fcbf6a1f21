"""A comparison is fair, goes on where it stopped, and says no more than it knows."""

from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss

from inna_tune import InnaClassifier, InnaRegressor, SearchSpace
from inna_tune.jobs.baselines import BASELINES, tune_baseline
from inna_tune.jobs.comparing import Comparison, Contender, compare, space_of
from inna_tune.optim.optimizers import OPTIMIZERS
from inna_tune.records.attributes import ENSEMBLE, FINGERPRINT, REASON
from inna_tune.records.certainty import Gain
from inna_tune.records.heldout import record_held_out
from inna_tune.records.importance import ColumnImportance, Importances
from inna_tune.records.record import StudyRecord
from inna_tune.report import render_report
from inna_tune.store.errors import StorageError
from inna_tune.study.splits import resolve_splits
from inna_tune.tables.problem import make_problem

SMALL = {"hidden_layer_sizes": (8,), "n_members": 1, "max_epochs": 8}


def problem_of(load, rows=150):
    X, y = load(return_X_y=True, as_frame=True)
    return make_problem(X.assign(target=y).sample(rows, random_state=0), "target")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    storage = f"sqlite:///{tmp_path_factory.mktemp('compared')}/studies.db"
    seen = []
    found = compare(
        problem_of(load_breast_cancer),
        baselines=("hgb", "linear"),
        n_trials=3,
        n_fits=5,
        storage=storage,
        study_name="cancer",
        estimator=InnaClassifier(**SMALL),
        watch=lambda name: Heard(seen, name),
    )
    return found, storage, seen


class Heard:
    def __init__(self, seen, name):
        self.seen, self.name = seen, name

    def __enter__(self):
        return lambda study, trial: self.seen.append((self.name, study.study_name, trial.number))

    def __exit__(self, *error):
        pass


def load(storage, name):
    return optuna.load_study(study_name=name, storage=storage)


def test_everyone_gets_the_same_rows_folds_score_and_trials(compared):
    found, storage, seen = compared
    names = [*OPTIMIZERS, "hgb", "linear"]
    assert [c.name for c in found.contenders] == [*names, "inna-ensemble", "constant"]
    prints = []
    for contender in found.contenders[:-2]:
        assert contender.study == f"cancer-{contender.name}"
        study = load(storage, contender.study)
        assert len(study.trials) == sum(contender.trials.values()) == 3
        prints.append(
            {k: v for k, v in study.user_attrs[FINGERPRINT].items() if k not in ("space", "estimator")}
        )
        assert contender.settings == study.best_params
        assert contender.cross_validated == pytest.approx(-study.best_value)
        assert contender.seconds == pytest.approx(sum(t.user_attrs["seconds"] for t in study.trials))
        assert contender.low <= contender.scores["log-loss"] <= contender.high
        right = contender.scores["accuracy"] * found.n_held_out_rows * 5
        assert right == pytest.approx(round(right)), "rows that five fits had right"
        assert contender.scores["accuracy"] > 0.5
    assert all(p == prints[0] for p in prints)
    assert sorted(seen) == sorted((f"cancer-{n}", f"cancer-{n}", i) for n in names for i in range(3))
    assert found.n_tuning_rows + found.n_held_out_rows == 150


def test_each_optimizer_steps_its_own_nets_and_is_tuned_in_what_it_has(compared):
    found, storage, _ = compared
    own = {
        "inna": {"alpha", "beta", "lr"},
        "innaprop": {"alpha", "beta", "lr"},
        "adamw": {"lr"},
        "muon": {"lr"},
        "sgd": {"lr", "optimizer__momentum"},
    }
    shared = {"decay", "weight_decay", "dropout"}
    for contender in found.contenders[: len(OPTIMIZERS)]:
        assert set(contender.settings) - {"decay_power"} == own[contender.name] | shared
        record = StudyRecord(load(storage, contender.study))
        assert record.settings["parameters"]["optimizer"] == contender.name
        assert ("effective step" in contender.words) == (contender.name == "inna")
        assert record.held_out.rows == found.n_held_out_rows
        untuned = load(storage, contender.study).trials[0].params
        assert (untuned["decay"], untuned["dropout"]) == ("cosine", 0.25)
    spaces = [space_of(name) for name in OPTIMIZERS if name != "inna"]
    assert all(space["decay"] == spaces[0]["decay"] for space in spaces)
    inna = SearchSpace.inna(net=True)
    for space in (space_of(name, net=True) for name in OPTIMIZERS if name != "inna"):
        assert all(space[name] == inna[name] for name in ("block", "hidden_layer_sizes", "decay", "dropout"))


def test_the_reference_is_compared_with_each_and_the_verdict_follows(compared):
    found, _, _ = compared
    assert found.reference == "inna"
    assert found.contenders[0].against is None
    first = found.contenders[0].scores["log-loss"]
    for other in found.contenders[1:]:
        assert 1 + other.against.change == pytest.approx(first / other.scores["log-loss"])
        assert other.against.low <= other.against.change <= other.against.high
    assert found.contenders[-1].against.is_clear
    assert len(found.verdict) == len(OPTIMIZERS) + 3
    assert found.summary()["contenders"][0]["name"] == "inna"


def test_the_ensemble_takes_part_at_no_further_training(compared):
    found, storage, _ = compared
    ensemble, single = found.contenders[-2], found.contenders[0]
    study = load(storage, "cancer-inna")
    assert (ensemble.study, ensemble.seconds) == (single.study, single.seconds)
    assert ensemble.cross_validated == pytest.approx(-study.user_attrs[ENSEMBLE]["value"])
    assert ensemble.settings == {}
    assert ensemble.words.startswith("the nets of the folds of trial")
    assert ensemble.low < ensemble.scores["log-loss"] < ensemble.high
    assert "inna-ensemble" in " ".join(found.verdict[:-1])
    assert "inna-ensemble" not in found.verdict[-1]
    # The study keeps what its best settings do, as those of the others.
    assert StudyRecord(study).held_out.scores["tuned"]["log-loss"] != ensemble.scores["log-loss"]


@pytest.mark.parametrize("name", ["inna", "innaprop", "hgb"])
def test_a_study_has_its_report(name, compared):
    page = render_report(load(compared[1], f"cancer-{name}"))
    assert "Rows that tuning never saw" in page
    assert ("Hatched" in page) == (name == "inna")


def test_a_comparison_goes_on_and_is_not_begun_twice(compared):
    found, storage, _ = compared
    question = {"problem": problem_of(load_breast_cancer), "storage": storage, "study_name": "cancer"}
    question |= {"estimator": InnaClassifier(**SMALL), "n_fits": 1, "optimizers": ("adamw",)}
    with pytest.raises(StorageError, match="'cancer-adamw'.*resume"):
        compare(n_trials=4, **question)
    again = compare(n_trials=4, resume=True, **question)
    assert again.reference == "adamw"
    assert [len(load(storage, f"cancer-{name}").trials) for name in ("adamw", "hgb", "sgd")] == [4, 4, 3]
    same = [c.cross_validated for c in found.contenders if c.name == "adamw"]
    assert again.contenders[0].cross_validated <= same[0]


def test_a_regression_and_a_contender_of_which_nothing_came(monkeypatch):
    def fail(self, *arguments, **options):
        raise RuntimeError("no trees today")

    monkeypatch.setattr(type(BASELINES["hgb"].make(classifier=False)), "fit", fail)
    found = compare(
        problem_of(load_diabetes),
        optimizers=("sgd", "inna"),
        baselines=("linear", "hgb"),
        n_trials=2,
        n_fits=1,
        storage=None,
        study_name="diabetes",
        estimator=InnaRegressor(**SMALL),
    )
    assert [c.name for c in found.contenders] == ["inna", "sgd", "linear", "hgb", "inna-ensemble", "constant"]
    lost = found.contenders[3]
    assert "no trees today" in lost.failed
    assert lost.scores == {}
    assert lost.against is None
    assert lost.trials["fail"] == 2
    assert set(found.contenders[2].scores) == {"RMSE", "R²"}
    assert found.contenders[0].low < found.contenders[0].scores["RMSE"] < found.contenders[0].high


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizers": ("adam",)}, "optimizer 'adam' must be one of inna"),
        ({"optimizers": ("inna", "inna")}, "named twice"),
        ({"optimizers": ()}, "optimizers is empty"),
        ({"baselines": ("xgb",)}, "baseline 'xgb' must be one of hgb, linear"),
        ({"n_fits": 0}, "n_fits=0"),
    ],
)
def test_wrong_questions_are_refused_before_anything_is_stored(wrong, message):
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(ValueError, match=message):
        compare(problem_of(load_diabetes), n_trials=1, storage=storage, study_name="d", **wrong)
    assert storage.get_all_studies() == []


def comparison(**changes):
    def contender(name, gain):
        return Contender(name, None, {}, 0.0, None, {"RMSE": 1.0}, 0.9, 1.1, gain, {}, "")

    gains = {"sgd": Gain(-0.2, -0.3, -0.1), "hgb": Gain(0.02, -0.1, 0.1), "constant": Gain(-0.8, -0.9, -0.7)}
    found = [contender("inna", None), *(contender(n, g) for n, g in (gains | changes).items())]
    return Comparison("regression", "RMSE", "inna", 10, 100, 25, tuple(found))


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({}, "inna is worth it here against sgd; against hgb it makes no difference that shows."),
        ({"hgb": Gain(-0.2, -0.3, -0.1)}, "inna is worth it here: clearly better than sgd and hgb."),
        ({"hgb": Gain(0.2, 0.1, 0.3)}, "inna is not the best choice here: hgb did clearly better."),
        (
            {"sgd": Gain(0.0, -0.1, 0.1)},
            "Nothing speaks for or against inna here: no difference to sgd and hgb",
        ),
        ({"constant": Gain(-0.01, -0.1, 0.1)}, "inna is not clearly better than the same prediction"),
    ],
)
def test_the_verdict_in_words(changes, last):
    words = comparison(**changes).verdict
    assert words[-1].startswith(last)
    if not changes:
        assert words[0] == (
            "The held-out RMSE of inna is 20.0% below that of sgd (95% interval -30.0% to -10.0%)."
        )
        assert "25 rows cannot tell which is better" in words[1]


# ---------------------------------------------------------------------- baselines


def test_a_baseline_begins_with_the_defaults_of_scikit_learn_and_is_scored_as_scikit_learn_would():
    problem = problem_of(load_breast_cancer)
    study = tune_baseline(
        "hgb", problem.X, problem.y, task="binary", n_trials=2, storage=None, study_name=None
    )
    first = study.trials[0]
    assert first.params == dict(BASELINES["hgb"].first)
    expected = []
    for train, test in resolve_splits(None, problem.X, problem.y, {}, classifier=True)[1]:
        model = HistGradientBoostingClassifier(random_state=0, early_stopping=False)
        model.fit(problem.X.iloc[train], problem.y.iloc[train])
        expected.append(-log_loss(problem.y.iloc[test], model.predict_proba(problem.X.iloc[test])))
    # skrub hands the trees float32, which moves a row or two over a threshold.
    np.testing.assert_allclose(first.user_attrs["scores"], expected, rtol=1e-3)


@pytest.mark.parametrize("kind", BASELINES)
def test_baselines_take_tables_as_they_come_and_folds_that_lack_a_class(kind):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "age": np.where(rng.random(60) < 0.2, np.nan, rng.normal(40, 10, 60)),
            "job": rng.choice(["clerk", "smith", None], 60),
            "seen": pd.date_range("2025-01-01", periods=60),
            "nothing": np.nan,
        }
    )
    y = pd.Series(["rare"] * 2 + ["yes", "no"] * 29, name="label")
    study = tune_baseline(kind, X, y, task="multiclass", n_trials=2, storage=None, study_name=None)
    reasons = [t.user_attrs.get(REASON) for t in study.trials]
    assert reasons == [None, None]
    assert np.isfinite(study.best_value)


def test_a_comparison_keeps_what_the_columns_of_a_study_are_worth(tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    options = {"optimizers": ("inna",), "baselines": (), "n_trials": 1, "n_fits": 1, "ensemble": False}
    options |= {"storage": storage, "study_name": "s"}
    net = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=2)
    problem = problem_of(load_breast_cancer, 60)
    compare(problem, estimator=net, **options)
    study = load(storage, "s-inna")
    before = StudyRecord(study).held_out
    worth = Importances("log-loss", 12, 1, 30, (ColumnImportance("mean radius", 0.1, 0.01),))
    record_held_out(study, replace(before, importances=worth))
    compare(problem, estimator=net, resume=True, **options)
    assert StudyRecord(load(storage, "s-inna")).held_out == replace(before, importances=worth)
