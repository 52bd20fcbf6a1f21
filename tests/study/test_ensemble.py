"""refit="ensemble": made of what trials have left, the same after a break, by any number of workers, wherever it is kept."""

import copy
import math
import pickle

import joblib
import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, ShuffleSplit, check_cv

import inna_tune
from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV, SearchSpace
from inna_tune.estimators import DivergenceError, EnsembleClassifier, EnsembleRegressor, TableEncoder
from inna_tune.records.attributes import ENSEMBLE
from inna_tune.space import Categorical, LogUniform, Uniform
from inna_tune.store.transfer import export_study, import_studies
from inna_tune.study import ensemble, group, kept, selection
from inna_tune.study.budget import Budget
from inna_tune.study.kept import Kept, contributors
from tests.study.sending import sent  # noqa: F401  (a fixture)

X, Y = load_iris(return_X_y=True, as_frame=True)
NET = InnaClassifier(hidden_layer_sizes=(4,), max_epochs=6, early_stopping=False, n_members=1)
# Given, so that trials are the same whoever draws them.
REST = {"beta": 0.3, "decay": "constant", "weight_decay": 1e-4, "dropout": 0.1}
SETTINGS = [{"alpha": a, "lr": lr} | REST for a, lr in [(0.3, 0.3), (0.5, 0.2), (0.2, 0.4), (0.4, 0.1)]]


def search(estimator=NET, **changes):
    settings = {
        "n_trials": 4,
        "cv": 3,
        "first": SETTINGS,
        "population": 1,
        "pruner": optuna.pruners.NopPruner(),
        "random_state": 0,
        "refit": "ensemble",
        "study_name": "s",
    }
    return InnaSearchCV(estimator, **(settings | changes))


def said(found):
    return found.study_.user_attrs[ENSEMBLE]


def files(folder):
    return sorted(path.name.partition("-")[2] for path in folder.glob("*"))


@pytest.fixture(scope="module", autouse=True)
def enough():
    """Three folds are enough for their nets to serve, but where a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "ENOUGH_FOLDS", 3)
        yield


@pytest.fixture(scope="module")
def straight():
    return search().fit(X, Y)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "s.db"
    return search(storage=f"sqlite:///{path}").fit(X, Y), path


def test_it_is_scored_by_the_search_on_rows_that_its_nets_did_not_see(straight):
    model, note = straight.best_estimator_, said(straight)
    assert isinstance(model, EnsembleClassifier)
    assert sum(note["weights"].values()) == pytest.approx(1)
    assert len(model.models_) == 3 * len(note["weights"]) == 3 * len(model.estimators)
    # The models come trial by trial and fold by fold: what the ensemble said of a fold is what those of the fold say.
    for k, (_, test) in enumerate(check_cv(3, Y, classifier=True).split(X, Y)):
        own = model.models_[k::3]
        average = sum(
            w * m.predict_proba(X.iloc[test]) for w, m in zip(note["weights"].values(), own, strict=True)
        )
        assert note["scores"][k] == pytest.approx(
            -log_loss(Y.iloc[test], average, labels=[0, 1, 2]), rel=1e-5
        )
    assert note["value"] == pytest.approx(np.mean(note["scores"]))
    assert straight.best_params_ == straight.study_.best_params
    assert straight.cv_results_["number"][straight.best_index_] == straight.study_.best_trial.number
    assert straight.score(X, Y) == pytest.approx(-log_loss(Y, model.predict_proba(X)))


def test_a_file_holds_what_memory_does_and_the_model_file_the_ensemble(straight, stored, tmp_path):
    found, _ = stored
    assert said(found) == said(straight)
    before = straight.predict_proba(X).tobytes()
    assert found.predict_proba(X).tobytes() == before
    found.best_estimator_.save(tmp_path / "e.inna")
    assert inna_tune.load(tmp_path / "e.inna").predict_proba(X).tobytes() == before
    assert pickle.loads(pickle.dumps(found)).predict_proba(X).tobytes() == before
    assert clone(found).refit == "ensemble"


def test_two_workers_make_the_same_ensemble(straight, tmp_path, sent):  # noqa: F811
    """Those that are sent their order by way of a file that is given up at the end, and threads by one that stays."""
    for storage, backend in [(None, "loky"), (f"sqlite:///{tmp_path}/s.db", "threading")]:
        with joblib.parallel_config(backend):
            found = search(storage=storage, n_jobs=2).fit(X, Y)
        assert said(found) == said(straight)
        assert found.predict_proba(X).tobytes() == straight.predict_proba(X).tobytes()


def test_a_search_without_it_leaves_what_a_later_one_takes_up(straight, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    first = search(storage=url, refit=True).fit(X, Y)
    assert isinstance(first.best_estimator_, InnaClassifier)
    assert ENSEMBLE not in first.study_.user_attrs
    later = search(storage=url, resume=True).fit(X, Y)
    assert later.predict_proba(X).tobytes() == straight.predict_proba(X).tobytes()
    # In memory nobody can, and nothing is kept.
    assert not list(Kept(search(refit=True).fit(X, Y).study_)._there())


@pytest.mark.parametrize("after", [True, False])
def test_it_is_the_same_after_a_break(straight, tmp_path, monkeypatch, after):
    """Broken off when a trial has written what it leaves, or is about to, and is not told yet."""
    save = Kept.save

    def break_off(self, number, left, nets, **kwargs):
        if after:
            save(self, number, left, nets, **kwargs)
        if number == 2:
            raise KeyboardInterrupt
        if not after:
            save(self, number, left, nets, **kwargs)

    url = f"sqlite:///{tmp_path}/s.db"
    monkeypatch.setattr(Kept, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        search(storage=url).fit(X, Y)
    monkeypatch.setattr(Kept, "save", save)
    again = search(storage=url, resume=True).fit(X, Y)
    assert said(again) == said(straight)
    assert again.predict_proba(X).tobytes() == straight.predict_proba(X).tobytes()


def test_only_the_best_and_the_first_keep_their_nets(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "N_BEST", 2)
    found = search(storage=f"sqlite:///{tmp_path}/s.db").fit(X, Y)
    trials = found.study_.get_trials()
    best = sorted(trials, key=lambda t: -t.value)[:2]
    wanted = {t.number for t in best} | {0}
    assert {t.number for t in contributors(trials)} == wanted
    names = files(tmp_path / "s.db.trained")
    assert names == sorted(
        [f"{t.number}-predictions.safetensors" for t in trials] + [f"{n}-nets.safetensors" for n in wanted]
    )
    assert set(map(int, said(found)["weights"])) <= wanted


def test_more_trials_make_another_ensemble(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    two = search(storage=url, n_trials=2).fit(X, Y)
    four = search(storage=url, n_trials=4, resume=True).fit(X, Y)
    assert four.study_.user_attrs[ENSEMBLE]["value"] >= two.study_.best_value - 1e-9
    whole = search().fit(X, Y)
    assert said(four) == said(whole)


# ---------------------------------------------------------------------- few folds


def test_with_few_folds_the_heaviest_settings_are_fitted_on_all_rows(straight, monkeypatch, tmp_path):
    monkeypatch.setattr(ensemble, "ENOUGH_FOLDS", 4)
    monkeypatch.setattr(ensemble, "MOST_FITS", 2)
    weight = 1.0 + np.arange(len(X)) % 3
    net = clone(NET).set_params(scale_tensors=False)
    found = search(net, random_state=1).fit(X, Y, sample_weight=weight)
    model = found.best_estimator_
    assert len(model.models_) == len(said(found)["weights"]) == 2
    numbers = list(map(int, said(found)["weights"]))
    for number, own, share in zip(numbers, model.models_, said(found)["weights"].values(), strict=True):
        trial = found.study_.trials[number]
        alone = clone(net).set_params(**trial.params, random_state=trial.user_attrs["seed"])
        alone.fit(X, Y, sample_weight=weight)
        assert own.predict_proba(X).tobytes() == alone.predict_proba(X).tobytes()
        assert share == pytest.approx(model.weights_[model.models_.index(own)])
    assert sum(said(found)["weights"].values()) == pytest.approx(1)
    model.save(tmp_path / "e.inna")
    assert inna_tune.load(tmp_path / "e.inna").predict_proba(X).tobytes() == model.predict_proba(X).tobytes()
    # Within a budget there is no time for that.
    assert len(search(timeout=1000.0).fit(X, Y).best_estimator_.models_) == len(
        straight.best_estimator_.models_
    )


def test_a_trial_that_diverges_on_all_rows_is_left_out(monkeypatch, caplog):
    monkeypatch.setattr(selection, "_TELLS_APART", math.inf)
    straight = search().fit(X, Y)
    numbers = list(map(int, said(straight)["weights"]))
    first = straight.study_.trials[numbers[0]].user_attrs["seed"]
    fit = InnaClassifier.fit

    def diverge(self, X, y, sample_weight=None):
        if self.random_state in gone:
            raise DivergenceError("Training diverged")
        return fit(self, X, y, sample_weight)

    monkeypatch.setattr(ensemble, "ENOUGH_FOLDS", 4)
    monkeypatch.setattr(InnaClassifier, "fit", diverge)
    gone = {first}
    found = search().fit(X, Y)
    assert len(numbers) > 1
    assert set(map(int, said(found)["weights"])) == set(numbers[1:])
    assert sum(said(found)["weights"].values()) == pytest.approx(1)
    assert found.best_estimator_.weights_.sum() == pytest.approx(1)
    assert f"trial {numbers[0]} is not in the ensemble" in caplog.text
    # Where all do, the nets of the folds serve.
    gone = {t.user_attrs["seed"] for t in straight.study_.trials}
    found = search().fit(X, Y)
    assert found.predict_proba(X).tobytes() == straight.predict_proba(X).tobytes()
    assert "one of the folds' nets" in caplog.text


def test_nets_that_are_too_large_are_not_kept_and_the_settings_fitted(straight, monkeypatch, tmp_path):
    monkeypatch.setattr(kept, "_MOST_BYTES", 10)
    found = search(storage=f"sqlite:///{tmp_path}/s.db").fit(X, Y)
    assert not list((tmp_path / "s.db.trained").glob("*nets*"))
    assert said(found)["on_all_rows"]
    assert said(found)["weights"] == said(straight)["weights"]


def test_one_held_out_part_is_enough():
    found = search(cv=ShuffleSplit(1, test_size=0.3, random_state=0), n_trials=3).fit(X, Y)
    assert len(found.best_estimator_.models_) == len(said(found)["weights"])
    assert said(found)["value"] >= found.best_score_


# ---------------------------------------------------------------------- where nothing, or too little, is left


def spoil(folder, how):
    for path in folder.iterdir():
        if how == "missing":
            path.unlink()
        elif how == "cut":
            path.write_bytes(path.read_bytes()[:-9])
        elif how == "text":
            path.write_text("x")


@pytest.mark.parametrize("how", ["missing", "cut", "text"])
def test_files_that_are_of_no_use_cost_the_ensemble_and_nothing_else(tmp_path, how, caplog):
    url = f"sqlite:///{tmp_path}/s.db"
    search(storage=url, n_trials=2, refit=False).fit(X, Y)
    spoil(tmp_path / "s.db.trained", how)
    with pytest.warns(ConvergenceWarning, match="none of the best trials has left its nets here"):
        found = search(storage=url, n_trials=2, resume=True).fit(X, Y)
    assert isinstance(found.best_estimator_, InnaClassifier)
    assert ("are of no use" in caplog.text) == (how != "missing")
    # Trials that come later do make one.
    more = search(storage=url, n_trials=3, resume=True).fit(X, Y)
    assert said(more)["weights"] == {"2": 1.0}


def test_what_is_of_another_trial_or_life_is_not_taken(stored, tmp_path):
    found, _ = stored
    store = Kept(found.study_)
    trial = found.study_.get_trials()[1]
    content, _ = store._read(1, "predictions")
    identity = content["identity"]
    assert store.predictions(1, identity, trial.value) is not None
    assert store.predictions(1, "x" + identity[1:], trial.value) is None
    assert store.predictions(1, identity, trial.value + 1e-9) is None
    assert store.nets(1, identity, trial.value, [[1]] * 3) is None
    assert store.predictions(9, identity, trial.value) is None


def test_a_study_that_cannot_be_written_beside_goes_on(tmp_path, caplog):
    (tmp_path / "s.db.trained").write_text("in the way")
    with pytest.warns(ConvergenceWarning, match="none of the best trials"):
        found = search(storage=f"sqlite:///{tmp_path}/s.db", n_trials=2).fit(X, Y)
    assert "leaves nothing" in caplog.text
    assert [t.state.name for t in found.study_.trials][:2] == ["COMPLETE"] * 2


def test_an_exported_study_has_no_nets_and_says_so(stored, tmp_path):
    _, path = stored
    export_study(f"sqlite:///{path}", "s", tmp_path / "sent.db")
    import_studies(f"sqlite:///{tmp_path}/here.db", tmp_path / "sent.db")
    with pytest.warns(ConvergenceWarning, match="none of the best trials has left its nets here"):
        search(storage=f"sqlite:///{tmp_path}/here.db", resume=True).fit(X, Y)
    assert "nets" in export_study.__doc__


# ---------------------------------------------------------------------- scorers, weights, groups, targets, time


def own_scorer(estimator, X, y):
    return estimator.score(X, y)


def test_a_scorer_that_wants_the_estimator_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="refit='ensemble'.*own_scorer.*make_scorer.*refit=True"):
        search(scoring=own_scorer).fit(X, Y)
    assert isinstance(
        search(scoring=own_scorer, refit=True, n_trials=1).fit(X, Y).best_estimator_, InnaClassifier
    )


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc_ovr", "neg_log_loss", "f1_macro"])
def test_scorers_by_name(scoring):
    found = search(scoring=scoring, n_trials=2).fit(X, Y)
    assert said(found)["value"] >= found.best_score_ - 0.05
    assert found.score(X, Y) == pytest.approx(found.scorer_(found.best_estimator_, X, Y))


@pytest.mark.parametrize("refit", ["ensembles", None, 2.5, ("ensemble",)])
def test_refit_is_true_false_or_ensemble(refit):
    with pytest.raises(ValueError, match="refit=.* must be True, False or 'ensemble'"):
        search(refit=refit).fit(X, Y)


def test_weights_and_groups_count():
    weight, groups = 1.0 + np.arange(len(X)) % 3, np.arange(len(X)) % 7
    found = search(cv=GroupKFold(3), n_trials=2).fit(X, Y, sample_weight=weight, groups=groups)
    note = said(found)
    splits = list(GroupKFold(3).split(X, Y, groups))
    model = found.best_estimator_
    for k, (_, test) in enumerate(splits):
        average = sum(
            w * m.predict_proba(X.iloc[test])
            for w, m in zip(note["weights"].values(), model.models_[k::3], strict=True)
        )
        right = -log_loss(Y.iloc[test], average, sample_weight=weight[test], labels=[0, 1, 2])
        assert note["scores"][k] == pytest.approx(right, rel=1e-5)


def test_a_class_that_a_fold_lacks():
    labels = np.where(np.arange(len(X)) < 3, "rare", np.array(["a", "b", "c"])[Y])
    order = np.arange(len(X))
    splits = [
        (order[3:][order[3:] % 2 == k], np.r_[order[:3], order[3:][order[3:] % 2 != k]]) for k in range(2)
    ]
    splits.append((np.r_[order[:3], order[3::2]], order[4::2]))
    found = search(cv=splits, n_trials=2).fit(X, labels)
    probabilities = found.predict_proba(X)
    assert found.best_estimator_.classes_.tolist() == ["a", "b", "c", "rare"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert {len(m.classes_) for m in found.best_estimator_.models_} == {3, 4}


@pytest.mark.parametrize("two", [False, True])
def test_regression(two, tmp_path):
    table, y = load_diabetes(return_X_y=True, as_frame=True)
    table, y = table.iloc[::3], y.iloc[::3]
    target = pd.DataFrame({"a": y, "b": -y}) if two else y
    net = InnaRegressor(hidden_layer_sizes=(4,), n_members=1, max_epochs=4)
    found = search(net, n_trials=3).fit(table, target)
    model = found.best_estimator_
    assert isinstance(model, EnsembleRegressor)
    assert model.predict(table).shape == np.asarray(target).shape
    model.save(tmp_path / "r.inna")
    assert inna_tune.load(tmp_path / "r.inna").predict(table).tobytes() == model.predict(table).tobytes()


def test_encoders_that_are_tuned_are_each_trial_s_own():
    net = clone(NET).set_params(encoder=TableEncoder())
    space = SearchSpace({"encoder__numeric": Categorical(["standard", "quantile"])})
    first = [{"encoder__numeric": kind} for kind in ("standard", "quantile")]
    found = search(net, space=space, first=first, n_trials=2).fit(X, Y)
    numbers = list(map(int, said(found)["weights"]))
    kinds = [e.encoder.numeric for e in found.best_estimator_.estimators]
    assert kinds == [first[n]["encoder__numeric"] for n in numbers]
    own = {m.encoder_.numeric for m in found.best_estimator_.models_}
    assert own == set(kinds)


def test_trials_that_diverge_are_in_no_ensemble():
    first = [{"alpha": 0.3, "beta": 0.3, "lr": 0.3}, {"alpha": 0.0, "beta": 1e-3, "lr": 1e9}]
    space = SearchSpace({"alpha": Uniform(0, 1), "beta": LogUniform(1e-4, 1), "lr": LogUniform(1e-3, 1e10)})
    found = search(first=first, n_trials=2, space=space).fit(X, Y)
    assert [t.state.name for t in found.study_.trials] == ["COMPLETE", "PRUNED"]
    assert said(found)["weights"] == {"0": 1.0}


def test_a_trial_that_time_cut_is_in_it_with_what_it_had_until_it_is_whole(tmp_path, monkeypatch):
    """As in the search's own answer, what it had reached counts, until a resume has finished it."""
    url = f"sqlite:///{tmp_path}/s.db"
    finish = group.Group._finish

    def cut(self, candidate, reason=None):
        if candidate.trial.number == 1 and not cut.done:
            cut.done = True
            self.runner.is_out_of_time = True
            self._cut(candidate)
        else:
            finish(self, candidate, reason)

    cut.done = False
    monkeypatch.setattr(group.Group, "_finish", cut)
    found = search(storage=url, timeout=1000.0).fit(X, Y)
    assert [t.state.name for t in found.study_.trials][:2] == ["COMPLETE", "WAITING"]
    assert set(said(found)["weights"]) <= {"0", "1"}
    numbers = {t.number for t in contributors(found.study_.get_trials())}
    assert numbers == {0, 1}
    assert found.leaderboard()["state"].tolist().count("cut") == 1
    whole = search(storage=url, resume=True).fit(X, Y)
    assert said(whole) == said(search().fit(X, Y))


def test_no_trial_in_time_gives_the_untuned_estimator_as_ever(monkeypatch):
    monkeypatch.setattr(Budget, "trials_to_draw", lambda self, most: 0)
    with pytest.warns(ConvergenceWarning, match="untuned"):
        found = search(timeout=100.0).fit(X, Y)
    assert isinstance(found.best_estimator_, InnaClassifier)


def test_an_own_module_is_in_an_ensemble_that_lives_in_memory(tmp_path):
    net = InnaClassifier(module=torch.nn.Linear, n_members=1, max_epochs=3, early_stopping=False)
    found = search(net, n_trials=1, first="default").fit(X, Y)
    assert found.predict_proba(X).shape == (len(X), 3)
    with pytest.raises(TypeError, match="own module"):
        found.best_estimator_.save(tmp_path / "m.inna")


def test_a_copy_and_a_pickle_predict_alike_without_the_storage(stored):
    found, _ = stored
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert again.predict_proba(X).tobytes() == found.predict_proba(X).tobytes()
        assert again.leaderboard().equals(found.leaderboard())


# ---------------------------------------------------------------------- the leaderboard


def test_the_leaderboard(straight):
    board = straight.leaderboard()
    assert board["score"].is_monotonic_decreasing
    assert board["model"].tolist().count("ensemble") == 1
    trials = board[board["trial"].notna()]
    assert sorted(trials["trial"]) == [0, 1, 2, 3]
    assert trials["weight"].sum() == pytest.approx(1)
    assert (trials["fit_seconds"] > 0).all()
    assert (trials["predict_seconds"] > 0).all()
    values = {t.number: t.value for t in straight.study_.trials}
    assert trials["score"].tolist() == [values[n] for n in trials["trial"]]
    ensemble = board[board["trial"].isna()].iloc[0]
    assert ensemble["score"] == said(straight)["value"]
    chosen = trials[trials["weight"] > 0]
    assert ensemble["fit_seconds"] == pytest.approx(chosen["fit_seconds"].sum())
    one = trials.iloc[0]
    scores = straight.study_.trials[int(one["trial"])].user_attrs["scores"]
    assert one["score_error"] == pytest.approx(np.std(scores, ddof=1) / np.sqrt(3))


def test_the_leaderboard_of_a_search_without_an_ensemble():
    board = search(refit=False, n_trials=2).fit(X, Y).leaderboard()
    assert board["weight"].tolist() == [0.0, 0.0]
    assert board["model"].tolist() == [f"trial {n}" for n in board["trial"]]


def test_it_says_where_trials_are_missing(caplog, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    search(storage=url, n_trials=2, refit=False).fit(X, Y)
    for path in (tmp_path / "s.db.trained").glob("*-1-*"):
        path.unlink()
    found = search(storage=url, n_trials=2, resume=True).fit(X, Y)
    assert "1 of its 2 best trials have left their predictions here" in caplog.text
    assert said(found)["weights"] == {"0": 1.0}


def test_trials_of_another_question_are_in_no_ensemble(caplog, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    tuned = SearchSpace({"hidden_layer_sizes": Categorical(["4", "6"]), "label_smoothing": Uniform(0.0, 0.1)})
    first = [{"hidden_layer_sizes": "6", "label_smoothing": 0.05}]
    search(storage=url, n_trials=1, space=tuned, first=first, refit=False).fit(X, Y)

    class Other(InnaClassifier):
        def _check_parameters(self, *, to_train=True):
            if self.label_smoothing:
                raise ValueError("label_smoothing: not today")

    other = Other(hidden_layer_sizes=(4,), max_epochs=6, early_stopping=False)
    space = SearchSpace({"dropout": Uniform(0.0, 0.5)})
    found = search(
        other, space=space, first=(), storage=url, n_trials=2, resume=True, allow_mismatch=True
    ).fit(X, Y)
    assert "trial 0 is in no ensemble: label_smoothing: not today" in caplog.text
    assert said(found)["weights"] == {"1": 1.0}
