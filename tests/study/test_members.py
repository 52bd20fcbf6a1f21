"""cv="members": a trial is one fit, each of its nets scored on the rows that it was trained without."""

import copy

import joblib
import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import NopPruner
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import get_scorer, log_loss, make_scorer, mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace, cross_validate
from inna_tune.engine.population import Population
from inna_tune.engine.width import Layout
from inna_tune.estimators import EnsembleClassifier, EnsembleRegressor
from inna_tune.estimators.member_plan import parts_left_out
from inna_tune.records.attributes import ENSEMBLE, FINGERPRINT, RULES
from inna_tune.records.fingerprint import MismatchError
from inna_tune.space import Categorical, LogUniform
from inna_tune.study.group import Group
from inna_tune.study.left_out import together
from inna_tune.study.rungs import RULES_NOW, RungPruner, rungs
from inna_tune.study.signals import Stopped

IRIS = load_iris(return_X_y=True, as_frame=True)
NET = InnaClassifier(hidden_layer_sizes=(4,), numeric_embedding="none", max_epochs=4)
REGRESSOR = InnaRegressor(hidden_layer_sizes=(4,), numeric_embedding="none", max_epochs=4)
SPACE = SearchSpace({"lr": LogUniform(0.01, 2.0), "weight_decay": Categorical([0.0, 1e-3])})
NEAR = {"rtol": 1e-6, "atol": 1e-9}


def search(estimator=NET, space=SPACE, **changes):
    common = {"n_trials": 3, "cv": "members", "random_state": 0, "population": 3, "error_score": "raise"}
    return InnaSearchCV(estimator, space, **(common | changes))


def alone(model, i):
    """One net of a fitted model."""
    found = copy.copy(model)
    found.weights_ = model.weights_[[i]]
    return found


def rows_left_out(model, X, y, weight=None):
    """By a second way, the rows that each net of a fit on a table left out, by their places in the table."""
    present = np.arange(len(X)) if weight is None else np.flatnonzero(weight)
    fresh = clone(model)
    table = fresh._encode_for_fit(X, y, weight)
    plan = fresh._plan_for(len(present))
    seed, *_ = fresh._seeds(plan.n_members)
    parts = (
        parts_left_out(plan, table.x, table.target, seed)
        or [fresh._split(table.target, seed)] * plan.n_members
    )
    return [present[left_out] for _, left_out in parts]


def same_fit(found, trial, X, y, weight=None):
    """What a person gets who fits a trial's settings."""
    seed = trial.user_attrs["seed"]
    given = {} if weight is None else {"sample_weight": weight}
    return clone(found.estimator).set_params(**trial.params, random_state=seed).fit(X, y, **given)


def own_metric(model, X, y):
    """One that asks for more than predictions, and changes what it is given."""
    score = -mean_absolute_error(np.asarray(y), model.predict(X)) - model.weights_.shape[0]
    X.iloc[:, 0] = 0.0
    return score


TASKS = {
    "log-loss": (
        NET,
        None,
        lambda m, X, y, w: -log_loss(y, m.predict_proba(X), labels=[0, 1, 2], sample_weight=w),
    ),
    "accuracy": (NET, "accuracy", lambda m, X, y, w: get_scorer("accuracy")(m, X, y, sample_weight=w)),
    "roc_auc": (NET, "roc_auc", lambda m, X, y, w: get_scorer("roc_auc")(m, X, y, sample_weight=w)),
    "RMSE": (REGRESSOR, None, lambda m, X, y, w: -np.sqrt(np.average((y - m.predict(X)) ** 2, weights=w))),
    "made": (
        REGRESSOR,
        make_scorer(mean_absolute_error, greater_is_better=False),
        lambda m, X, y, w: -mean_absolute_error(y, m.predict(X), sample_weight=w),
    ),
    "own": (REGRESSOR, own_metric, lambda m, X, y, w: own_metric(m, X.copy(), y)),
}


@settings(max_examples=6, deadline=None)
@given(
    task=st.sampled_from(sorted(TASKS)),
    n_rows=st.integers(90, 110),
    weighted=st.booleans(),
    n_members=st.sampled_from(["auto", "auto", 1, 2]),
    seed=st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore:The scorer:UserWarning")
def test_a_trials_value_is_the_mean_over_the_nets_of_that_fit(task, n_rows, weighted, n_members, seed):
    net, scoring, by_hand = TASKS[task]
    if n_members != "auto":
        n_rows += 150  # of fewer than 200 rows none are held out of nets that have the same
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {"a": rng.normal(size=n_rows), "b": rng.normal(size=n_rows), "c": rng.choice(list("xyz"), n_rows)}
    )
    signal = X["a"] + rng.normal(size=n_rows)
    y = (
        signal
        if net is REGRESSOR
        else pd.cut(signal, [-9, 0, 9] if task == "roc_auc" else [-9, -0.5, 0.5, 9], labels=False)
    )
    weight = rng.integers(0, 5, n_rows).astype(float) if weighted else None
    found = search(clone(net).set_params(n_members=n_members), scoring=scoring, n_trials=2)
    found.fit(X, y, sample_weight=weight)
    for row, trial in enumerate(found.study_.trials):
        if trial.state.name != "COMPLETE":
            continue
        model = same_fit(found, trial, X, y, weight)
        left_out = rows_left_out(model, X, y, weight)
        assert len(left_out) == found.n_splits_ == (8 if n_members == "auto" else n_members)
        nets = trial.user_attrs.get("nets", range(len(left_out)))
        assert len(nets) == len(model.weights_)
        left_out = [left_out[net] for net in nets]
        expected = [
            by_hand(alone(model, i), X.iloc[rows], y.iloc[rows], None if weight is None else weight[rows])
            for i, rows in enumerate(left_out)
        ]
        np.testing.assert_allclose(trial.user_attrs["scores"], expected, rtol=1e-5, atol=1e-7)
        assert trial.value == pytest.approx(np.mean(trial.user_attrs["scores"]))
        splits = [found.cv_results_[f"split{net}_test_score"][row] for net in range(found.n_splits_)]
        assert [splits[net] for net in nets] == trial.user_attrs["scores"]
        assert np.isnan([score for net, score in enumerate(splits) if net not in nets]).all()
        assert found.cv_results_["std_test_score"][row] == np.std(trial.user_attrs["scores"])
    best = same_fit(found, found.study_.trials[found.cv_results_["number"][found.best_index_]], X, y, weight)
    if n_members != 1:
        assert best.weights_.numpy().tobytes() == found.best_estimator_.weights_.numpy().tobytes()
    np.testing.assert_allclose(best.predict(X), found.predict(X), rtol=1e-4)


def test_it_scores_what_a_single_setting_is_worth_likewise():
    found = cross_validate(clone(NET).set_params(random_state=3), *IRIS, cv="members")
    trial = search(
        clone(NET).set_params(random_state=3), SearchSpace({"max_epochs": Categorical([4])}), n_trials=1
    )
    np.testing.assert_allclose(
        found["test_score"], trial.fit(*IRIS).study_.trials[0].user_attrs["scores"], **NEAR
    )


# ---------------------------------------------------------------------- the model


@pytest.fixture
def trained(monkeypatch):
    """Rows that members trained on, by a list of one number."""
    found, original = [0], Population.train_epoch
    # Found by timing steps, which would be counted.
    monkeypatch.setattr(
        "inna_tune.engine.training.quickest_layout",
        lambda net, table, members, *more, **how: Layout(len(members), 1),
    )

    def counting(population, *args, **kwargs):
        found[0] += sum(len(m.train_rows) for m in population.members)
        return original(population, *args, **kwargs)

    monkeypatch.setattr(Population, "train_epoch", counting)
    return found


@pytest.mark.parametrize("refit", [True, "ensemble"])
def test_a_search_trains_each_trial_once_and_nothing_after(trained, refit):
    whole = {"pruner": optuna.pruners.NopPruner()}
    search(refit=False, **whole).fit(*IRIS)
    trials, trained[0] = trained[0], 0
    found = search(refit=refit, **whole).fit(*IRIS)
    assert trained[0] == trials
    trained[0] = 0
    model = same_fit(found, found.study_.trials[0], *IRIS)
    assert trials == 3 * trained[0]
    if refit is True:
        best = same_fit(found, found.study_.best_trial, *IRIS)
        pd.testing.assert_frame_equal(
            best.history_.drop(columns="seconds"), found.best_estimator_.history_.drop(columns="seconds")
        )
        assert list(found.best_estimator_.feature_names_in_) == list(model.feature_names_in_)
        assert found.best_estimator_.get_params() == best.get_params()


def test_trials_leave_out_the_same_rows_and_others_by_another_seed():
    found = search().fit(*IRIS).study_.trials
    assert len({t.user_attrs["seed"] for t in found}) == 1
    assert (
        found[0].user_attrs["seed"] != search(random_state=1).fit(*IRIS).study_.trials[0].user_attrs["seed"]
    )


@pytest.mark.parametrize("refit", [True, "ensemble"])
def test_nets_too_large_to_be_kept_are_trained_once_more_and_are_the_same(monkeypatch, trained, refit):
    whole = search(refit=refit).fit(*IRIS)
    before = trained[0]
    monkeypatch.setattr("inna_tune.study.kept._MOST_BYTES_OF_A_FIT", 0)
    again = search(refit=refit).fit(*IRIS)
    assert trained[0] > 2 * before
    assert again.predict_proba(IRIS[0]).tobytes() == whole.predict_proba(IRIS[0]).tobytes()
    assert whole.study_.user_attrs.get(ENSEMBLE) == again.study_.user_attrs.get(ENSEMBLE)


def test_an_ensemble_is_of_the_fits_as_they_are_and_scored_by_what_their_nets_left_out():
    X, y = IRIS
    found = search(refit="ensemble").fit(X, y)
    model, note = found.best_estimator_, found.study_.user_attrs[ENSEMBLE]
    assert isinstance(model, EnsembleClassifier)
    assert note["on_all_rows"] is True
    said = np.zeros((len(X), 3))
    for own, (number, weight) in zip(model.models_, note["weights"].items(), strict=True):
        fit = same_fit(found, found.study_.trials[int(number)], X, y)
        assert own.weights_.numpy().tobytes() == fit.weights_.numpy().tobytes()
        outputs, nets = fit._outputs(X), found.study_.trials[int(number)].user_attrs.get("nets", range(8))
        left_out = [rows_left_out(fit, X, y)[net] for net in nets]
        for row in range(len(X)):
            nets = [i for i, rows in enumerate(left_out) if row in rows]
            said[row] += weight * fit._from_outputs(outputs[nets][:, [row]])[0]
    assert note["value"] == pytest.approx(-log_loss(y, said), rel=1e-5)


def wave(n=230, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    return X, X["a"] + rng.normal(size=n)


@pytest.mark.parametrize("best_leaves_out", [0.1, 0.3])
def test_an_ensemble_is_chosen_by_the_rows_that_the_best_trial_left_out(best_leaves_out):
    """Those who did not leave out all of them are in none."""
    X, _ = wave()
    # Without noise, so that it is plain which trial has learnt.
    y = X["a"]
    net = clone(REGRESSOR).set_params(n_members=2, max_epochs=40)
    space = SearchSpace({"validation_fraction": Categorical([0.1, 0.3]), "lr": LogUniform(1e-5, 1.0)})
    first = [{"lr": 0.3 if f == best_leaves_out else 1e-5, "validation_fraction": f} for f in (0.1, 0.3)]
    # Who is pruned after an epoch has not learnt yet.
    found = search(net, space, first=first, refit="ensemble", n_trials=2, pruner=NopPruner()).fit(X, y)
    rows = rows_left_out(same_fit(found, found.study_.best_trial, X, y), X, y)[0]
    assert len(rows) == best_leaves_out * 230
    weights = {int(number) for number in found.study_.user_attrs[ENSEMBLE]["weights"]}
    # By one seed a tenth is a part of three tenths.
    assert weights == {1} if best_leaves_out == 0.3 else 0 in weights
    expected = -np.sqrt(np.mean((y[rows] - found.predict(X.iloc[rows])) ** 2))
    assert found.study_.user_attrs[ENSEMBLE]["scores"] == [pytest.approx(expected, rel=1e-4)]


def test_quantiles_of_an_ensemble_are_scaled_by_rows_that_were_left_out():
    X, y = wave()
    net = clone(REGRESSOR).set_params(quantiles=(0.1, 0.5, 0.9))
    model = search(net, refit="ensemble").fit(X, y).best_estimator_
    assert isinstance(model, EnsembleRegressor)
    assert model.quantile_factors_.shape == (3,)
    assert (model.quantile_factors_ != 1).any()
    assert (np.diff(model.predict_quantiles(X), axis=1) >= 0).all()


@given(
    st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4).filter(
        lambda masks: any(map(any, masks))
    )
)
def test_rows_are_told_by_all_who_left_them_out_and_by_none_else(masks):
    masks = np.array(masks)
    told = [
        (np.flatnonzero(mask), np.flatnonzero(mask)[:, None] + 10.0 * net) for net, mask in enumerate(masks)
    ]
    found = together(5, told, lambda raw, rows: raw.mean(0)[:, 0])
    for row in range(5):
        own = [row + 10.0 * net for net in range(len(masks)) if masks[net, row]]
        assert found[row] == pytest.approx(np.mean(own)) if own else np.isnan(found[row])


# ---------------------------------------------------------------------- studies


def comparable(study):
    return [
        (t.params, t.state, t.value, t.intermediate_values, t.user_attrs.get("scores")) for t in study.trials
    ]


def test_a_study_that_is_broken_off_goes_on_bit_for_bit(tmp_path, monkeypatch):
    net = clone(NET).set_params(max_epochs=16)
    whole = {"n_trials": 6, "pruner": optuna.pruners.NopPruner()}
    straight = search(net, **whole).fit(*IRIS)
    url, lap = f"sqlite:///{tmp_path}/s.db", Group._save
    monkeypatch.setattr("inna_tune.study.group._WORTH_KEEPING", 0.0)
    saved = []

    def broken_off(group, candidate):
        lap(group, candidate)
        saved.append(candidate.trial.number)
        if len(saved) == 8:
            raise Stopped

    monkeypatch.setattr(Group, "_save", broken_off)
    where = {"storage": url, "study_name": "s", **whole}
    with pytest.raises(Stopped):
        search(net, **where).fit(*IRIS)
    resumed = search(net, resume=True, **where).fit(*IRIS)
    assert max(saved) >= 3
    assert comparable(resumed.study_) == comparable(straight.study_)
    assert resumed.predict_proba(IRIS[0]).tobytes() == straight.predict_proba(IRIS[0]).tobytes()


def test_others_folds_are_refused_and_older_studies_go_on(tmp_path):
    where = {"storage": f"sqlite:///{tmp_path}/s.db", "resume": True, "refit": False}
    search(study_name="own", n_trials=1, **where).fit(*IRIS)
    search(study_name="folds", n_trials=1, cv=2, **where).fit(*IRIS)
    with pytest.raises(MismatchError, match="cross-validation is members, now it is 2"):
        search(study_name="own", cv=2, **where).fit(*IRIS)
    with pytest.raises(MismatchError, match="cross-validation is 2, now it is members"):
        search(study_name="folds", **where).fit(*IRIS)
    assert len(search(study_name="own", n_trials=2, **where).fit(*IRIS).study_.trials) == 2
    described = search(study_name="own", n_trials=2, **where).fit(*IRIS).study_.user_attrs[FINGERPRINT]
    assert described["cv"] == "members"


def test_weak_trials_are_pruned_and_the_first_is_not():
    net = clone(NET).set_params(max_epochs=16)
    found = (
        search(net, SearchSpace({"lr": LogUniform(1e-4, 2.0)}), n_trials=16, pruner=None).fit(*IRIS).study_
    )
    states = [t.state.name for t in found.trials]
    assert states[0] == "COMPLETE"
    assert "PRUNED" in states
    assert all(set(t.intermediate_values) <= set(rungs(16, by_members=True)) for t in found.trials)


def test_a_study_goes_on_by_the_rules_that_it_was_begun_with(tmp_path):
    net, space = clone(NET).set_params(max_epochs=32), SearchSpace({"lr": LogUniform(1e-4, 2.0)})
    where = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s", "pruner": None, "refit": False}
    study = search(net, space, n_trials=1, **where).fit(*IRIS).study_
    now, earlier = (set(rungs(32, by_members=True, rules=rules)) for rules in (RULES_NOW, 0))
    assert set(study.trials[0].intermediate_values) <= now
    assert study.user_attrs[RULES] == RULES_NOW
    study.set_user_attr(RULES, 0)  # as if it had no such word, being an older version's
    went_on = search(net, space, n_trials=6, resume=True, **where).fit(*IRIS).study_
    steps = set().union(*(t.intermediate_values for t in went_on.trials[1:]))
    assert steps <= earlier
    assert steps - now


@pytest.mark.parametrize(("horizon", "compares_all"), [(240, True), (100, False)])
def test_trials_of_all_laws_are_compared_where_the_horizon_is_far(monkeypatch, horizon, compares_all):
    seen, prune = [], RungPruner.prune

    def watching(self, study, trial):
        seen.append({trial.params["decay"], *(t.params["decay"] for t in study.get_trials())})
        return prune(self, study, trial)

    monkeypatch.setattr(RungPruner, "prune", watching)
    net = clone(NET).set_params(max_epochs=horizon, patience=1)
    first = [{"decay": "cosine"}, {"decay": "power"}]
    search(
        net, SearchSpace({"decay": Categorical(["cosine", "power"])}), first=first, n_trials=2, pruner=None
    ).fit(*IRIS)
    assert ({"cosine", "power"} in seen) == compares_all


def test_under_a_budget_the_model_begins_with_the_nets_of_the_best_trial(trained):
    """What is left trains further nets; an ensemble costs nothing more."""
    net = clone(NET).set_params(max_time=None, linear_path=False)
    X, y = wave(60)
    whole = search(net, timeout=1000.0, n_trials=2).fit(X, y > 0)
    best = same_fit(whole, whole.study_.best_trial, X, y > 0)
    nets = whole.best_estimator_.weights_
    assert len(nets) == 2 * len(best.weights_)
    assert nets[: len(best.weights_)].numpy().tobytes() == best.weights_.numpy().tobytes()
    trained[0] = 0
    search(net, timeout=1000.0, refit="ensemble", n_trials=2).fit(X, y > 0)
    own, trained[0] = trained[0], 0
    for trial in whole.study_.trials:
        same_fit(whole, trial, X, y > 0)
    clone(net).fit(X, y > 0)
    assert own == trained[0]


# ---------------------------------------------------------------------- what leaves out no rows


@pytest.mark.parametrize(
    ("estimator", "n_rows", "given", "remedy"),
    [
        (
            make_pipeline(StandardScaler(), NET),
            100,
            {},
            "its transformers would learn from all rows. Give folds",
        ),
        (clone(NET).set_params(early_stopping=False), 100, {}, "Set it to True, or give folds"),
        (clone(NET).set_params(n_members=1), 100, {}, "n_members=1 a fit on 100 rows.* Give folds"),
        (NET, 39, {}, "a fit on 39 rows.* Give folds"),
        (NET, 100, {"groups": np.arange(100)}, "without regard to groups. Give a splitter"),
    ],
)
def test_what_leaves_out_no_rows_is_refused_before_anything_is_stored(
    estimator, n_rows, given, remedy, tmp_path
):
    X, y = wave(n_rows)
    space = SearchSpace({"weight_decay": LogUniform(1e-5, 1e-2)})
    found = search(estimator, space, storage=f"sqlite:///{tmp_path}/s.db", study_name="s")
    with pytest.raises(ValueError, match=f"cv='members'.*{remedy}"):
        found.fit(X, y > 0, **given)
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/s.db") == []


def test_a_trial_whose_settings_leave_out_no_rows_fails_and_says_so():
    space = SearchSpace({"n_members": Categorical(["auto", 1])})
    first = [{"n_members": "auto"}, {"n_members": 1}]
    found = search(NET, space, first=first, n_trials=2, error_score=np.nan).fit(*IRIS)
    assert [t.state.name for t in found.study_.trials] == ["COMPLETE", "FAIL"]
    assert "cv='members'" in found.study_.trials[1].user_attrs["reason"]


def test_a_score_that_is_not_defined_on_what_a_net_left_out_names_the_net():
    X, _ = wave(100)
    labels = np.where(np.arange(100) < 2, "rare", "usual")
    with pytest.raises(ValueError, match="roc_auc_score gave no number .nan. on nets? .* all of target"):
        search(scoring="roc_auc", n_trials=1).fit(X, labels)


def test_a_word_that_is_none_is_refused():
    with pytest.raises(ValueError, match="cv='member' must be .*'members' will do"):
        search(cv="member").fit(*IRIS)


def test_several_workers_train_the_same_and_leave_what_the_model_is_made_of():
    first = [{"lr": lr, "weight_decay": 0.0} for lr in (0.05, 0.2, 0.8)]
    given = {"first": first, "pruner": optuna.pruners.NopPruner(), "refit": "ensemble", "population": 1}
    straight = search(**given).fit(*IRIS)
    with joblib.parallel_config("threading"):
        shared = search(n_jobs=2, **given).fit(*IRIS)
    assert comparable(shared.study_) == comparable(straight.study_)
    assert shared.predict_proba(IRIS[0]).tobytes() == straight.predict_proba(IRIS[0]).tobytes()
