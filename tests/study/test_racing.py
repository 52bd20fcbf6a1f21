"""Trials that begin on their first fold, and who of them goes on."""

import math

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, InnaSearchCV, PriorSampler, SearchSpace
from inna_tune.engine.population import Population
from inna_tune.records.attributes import RACE
from inna_tune.space import Categorical, LogUniform
from inna_tune.study import group
from inna_tune.study.checkpoints import Checkpoints
from inna_tune.study.evaluation import Cohort
from inna_tune.study.rungs import EarlierTrials, RungPruner, finals_of, races_folds, rungs

NET = InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=16, numeric_embedding="none")
IRIS = tuple(part.iloc[::2] for part in load_iris(return_X_y=True, as_frame=True))
SPACE = SearchSpace.inna(curvature=20.0)


def search(**changes):
    """By a sampler that learns nothing, so that settings don't depend on what became of earlier trials."""
    sampler = PriorSampler(RandomSampler(), SPACE, k=np.inf, seed=5)
    common = {"space": SPACE, "n_trials": 12, "cv": 3, "random_state": 2, "population": 4, "sampler": sampler}
    return InnaSearchCV(NET, **(common | changes))


@pytest.fixture(scope="module")
def raced():
    found = search().fit(*IRIS).study_
    complete = {t.number for t in found.trials if t.state == TrialState.COMPLETE}
    assert complete & {1, 2, 3}, (
        "the example must have a trial of the first cohort that goes on to the other folds"
    )
    assert any(t.state == TrialState.PRUNED and t.last_step > NET.max_epochs for t in found.trials)
    return found


def test_a_complete_trial_is_trained_on_every_fold_as_if_none_had_been_pruned(raced):
    whole = search(pruner=NopPruner()).fit(*IRIS).study_.trials
    assert all(t.state == TrialState.COMPLETE for t in whole)
    complete = [t for t in raced.trials if t.state == TrialState.COMPLETE]
    assert 0 < len(complete) < len(whole)
    for trial in complete:
        alone = whole[trial.number]
        assert trial.params == alone.params
        assert trial.user_attrs["scores"] == alone.user_attrs["scores"]
        assert trial.value == alone.value


def test_a_trial_whose_folds_are_not_all_trained_is_pruned_and_has_no_score(raced):
    on_first = [t for t in raced.trials if "first fold" in t.user_attrs.get("reason", "")]
    assert on_first
    for trial in on_first:
        assert trial.state == TrialState.PRUNED
        assert "scores" not in trial.user_attrs
        assert len(trial.user_attrs["best_epoch"]) == 1
        assert trial.last_step <= NET.max_epochs


def test_reports_are_of_the_first_fold_then_the_mean_over_all(raced):
    at = rungs(NET.max_epochs, races=True)
    for trial in raced.trials:
        steps = sorted(trial.intermediate_values)
        assert steps == [*at, NET.max_epochs, *(NET.max_epochs + rung for rung in at)][: len(steps)]
        if trial.state == TrialState.COMPLETE:
            first = trial.intermediate_values[NET.max_epochs]
            assert first == pytest.approx(trial.user_attrs["scores"][0], rel=1e-4)
    whole = search(pruner=NopPruner()).fit(*IRIS).study_.trials
    for trial in raced.trials:
        for rung in at:
            if (step := NET.max_epochs + rung) in trial.intermediate_values:
                mean = whole[trial.number].intermediate_values[rung]
                assert trial.intermediate_values[step] == pytest.approx(mean, rel=1e-6)


def test_it_costs_little_of_what_training_all_of_them_does(monkeypatch):
    seen, train_epoch = [], Population.train_epoch

    def counting(self, *args, **kwargs):
        seen.append(sum(len(m.train_rows) for m in self.members))
        return train_epoch(self, *args, **kwargs)

    monkeypatch.setattr(Population, "train_epoch", counting)
    costs = []
    for pruner in (None, NopPruner()):
        seen.clear()
        search(pruner=pruner, refit=False).fit(*IRIS)
        costs.append(sum(seen))
    assert costs[0] < 0.6 * costs[1]


@pytest.mark.parametrize("law", ["cosine", "constant", "power", "log"])
def test_trials_of_every_law_of_decay_are_pruned(law):
    space = SearchSpace({"lr": LogUniform(1e-3, 1.0), "decay": Categorical([law])})
    net = InnaClassifier(**NET.get_params() | {"alpha": 0.5, "beta": 0.2, "encoder": None})
    found = InnaSearchCV(net, space, n_trials=6, cv=2, random_state=0).fit(*IRIS)
    assert any(t.state == TrialState.PRUNED for t in found.study_.trials)


def test_a_trial_is_compared_with_those_whose_law_has_a_horizon_as_its_own(monkeypatch):
    seen, prune = [], RungPruner.prune

    def watching(self, study, trial):
        others = {t.params["decay"] for t in study.get_trials()}
        seen.append((trial.last_step == NET.max_epochs, trial.params["decay"], others))
        return prune(self, study, trial)

    monkeypatch.setattr(RungPruner, "prune", watching)
    search().fit(*IRIS)
    assert {"cosine"} < {law for _, law, _ in seen}
    for _, law, others in [s for s in seen if not s[0]]:
        assert others <= ({"cosine"} if law == "cosine" else {"constant", "power", "log"})
    assert any(len(others & {"cosine", law}) == 2 for has_ended, law, others in seen if has_ended)


class Interruption(BaseException):
    """Stands for a kill: nothing that runs may catch it."""


@pytest.mark.parametrize(("call", "n_begun"), [(3, 1), (4, 1), (6, 3)])
def test_it_goes_on_from_checkpoints_on_the_first_fold_and_on_the_others(
    call, n_begun, raced, tmp_path, monkeypatch
):
    monkeypatch.setattr(group, "_WORTH_KEEPING", 0.0)
    url, run, calls, loaded = f"sqlite:///{tmp_path}/s.db", Cohort.run, [], []
    common = {"storage": url, "study_name": "s"}

    def interrupting(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Interruption
        return run(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Cohort, "run", interrupting)
        with pytest.raises(Interruption):
            search(**common).fit(*IRIS)
    load = Checkpoints.load

    def noting(self, number, *args, **kwargs):
        loaded.append((number, load(self, number, *args, **kwargs)))
        return loaded[-1][1]

    monkeypatch.setattr(Checkpoints, "load", noting)
    resumed = search(**common, resume=True).fit(*IRIS).study_
    assert n_begun in {c.n_begun for number, c in loaded if number > 0 and c is not None}

    def comparable(study):
        return [
            (t.number, t.state, t.params, t.value, t.intermediate_values, t.user_attrs.get("scores"))
            for t in study.trials
        ]

    assert comparable(resumed) == comparable(raced)


def test_a_study_begun_without_it_goes_on_without_it(tmp_path):
    common = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "s"}
    search(**common, n_trials=2, pruner=NopPruner()).fit(*IRIS)
    found = search(**common, n_trials=8, resume=True).fit(*IRIS).study_
    assert RACE not in found.user_attrs
    assert not races_folds(found)
    assert any(t.state == TrialState.PRUNED for t in found.trials)
    assert all(len(t.user_attrs["best_epoch"]) == 3 for t in found.trials)


def test_where_a_trial_has_a_time_of_its_own_all_folds_have_their_share():
    net = InnaClassifier(**NET.get_params() | {"max_time": 60.0, "encoder": None})
    found = InnaSearchCV(net, SPACE, n_trials=4, cv=2, random_state=0).fit(*IRIS)
    assert all(len(t.user_attrs["best_epoch"]) == 2 for t in found.study_.trials)


# ---------------------------------------------------------------------- who goes on


def study_of(values, direction="maximize", step=4, law="cosine"):
    study = optuna.create_study(direction=direction)
    choices = CategoricalDistribution(("cosine", "power"))
    for value in values:
        study.add_trial(
            create_trial(
                params={"decay": law},
                distributions={"decay": choices},
                intermediate_values={step: value},
                state=TrialState.PRUNED,
            )
        )
    return study


scores = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@given(values=scores, direction=st.sampled_from(["maximize", "minimize"]), factor=st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_the_best_in_so_many_go_on_and_the_first_trial(values, direction, factor):
    study = study_of(values, direction)
    gone = {t.number for t in study.trials if RungPruner(factor).prune(study, t)}
    assert 0 not in gone
    best = max(values) if direction == "maximize" else min(values)
    assert all(values[number] != best for number in gone)
    sign = 1 if direction == "maximize" else -1
    kept = [sign * v for n, v in enumerate(values) if n not in gone and n > 0]
    if kept and gone:
        assert min(kept) > max(sign * values[n] for n in gone)
    for number in gone:
        n_better = sum(sign * v > sign * values[number] for v in values)
        assert n_better >= max(1, len(values) // factor)


def test_no_number_ends_a_trial_and_no_report_does_not():
    study = study_of([1.0, math.nan])
    assert RungPruner().prune(study, study.trials[1])
    study = study_of([1.0])
    study.add_trial(create_trial(state=TrialState.PRUNED))
    assert not RungPruner().prune(study, study.trials[1])


def test_earlier_trials_are_those_with_smaller_numbers_that_are_alike():
    study = study_of([1.0, 2.0, 3.0, 4.0])
    view = EarlierTrials(study, 2, alike=lambda trial: trial.number != 1)
    assert [t.number for t in view.get_trials()] == [0, 2]
    assert view.direction == study.direction


@pytest.mark.parametrize(("ended_with", "goes_on"), [(2.0, False), (0.5, True)])
def test_a_trial_is_compared_with_those_that_had_ended_before_where_that_is_asked_for(ended_with, goes_on):
    study = optuna.create_study(direction="maximize")
    complete, pruned = TrialState.COMPLETE, TrialState.PRUNED
    # What is pruned has its last report for a value.
    for state, value, reports in (
        (complete, 0.0, {8: 0.0}),
        (complete, ended_with, {1: 0.1}),
        (pruned, 9.0, {1: 9.0}),
        (pruned, 1.0, {8: 1.0}),
    ):
        study.add_trial(create_trial(value=value, state=state, intermediate_values=reports))
    trial = study.trials[3]
    assert not RungPruner(4).prune(EarlierTrials(study, 3), trial)
    assert RungPruner(4).prune(EarlierTrials(study, 3, counts_ended=True), trial) != goes_on


@given(max_epochs=st.integers(1, 400), by_members=st.booleans())
def test_rungs_lie_within_a_training_and_of_trials_that_are_one_fit_within_a_usual_one(
    max_epochs, by_members
):
    at = rungs(max_epochs, by_members=by_members)
    assert at == sorted(set(at))
    assert all(0 < epoch < max_epochs for epoch in at)
    if by_members and max_epochs > 30:
        assert at == [1, 8, 15, 30]
        assert finals_of(at) == 15
