"""What makes an ensemble: all that rows cannot tell from the best, or what an independent greedy selection finds."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes, load_iris
from sklearn.metrics import make_scorer, mean_absolute_error

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.study.evaluation import Cohort
from inna_tune.study.folding import FoldedTable
from inna_tune.study.scoring import resolve_scorer
from inna_tune.study.selection import (
    _PATIENCE,
    _STEPS,
    Judge,
    Selection,
    greedy,
    heaviest,
    indistinct,
    restricted,
    select,
)


class Squares:
    """Judges averages by their squared error: a score that needs no table."""

    def __init__(self, targets):
        self.targets, self.n_folds = targets, len(targets)

    def needed(self, predictions):
        return predictions

    def row_losses(self, k, needed):
        return None

    def score(self, k, average):
        return -float(np.mean((average - self.targets[k]) ** 2))


class Rows(Squares):
    """The same, of which the rows' losses are known, with weights."""

    def row_losses(self, k, needed):
        weights = 1.0 + np.arange(len(needed)) % 3
        return (needed - self.targets[k]) ** 2, weights / weights.sum()

    def score(self, k, average):
        losses, weights = self.row_losses(k, average)
        return -float(losses @ weights) if np.isfinite(losses).all() else -math.inf


def problem(seed, n_candidates, n_folds, noise=1.0):
    rng = np.random.default_rng(seed)
    targets = [rng.normal(size=rng.integers(3, 9)) for _ in range(n_folds)]
    candidates = [[t + noise * rng.normal(size=len(t)) for t in targets] for _ in range(n_candidates)]
    return candidates, Squares(targets)


def naive(candidates, judge, folds):
    """The same by lists of members, each average computed anew."""

    def score(members):
        parts = [np.mean([candidates[i][k] for i in members], axis=0) for k in folds]
        return float(np.mean([judge.score(k, part) for k, part in zip(folds, parts, strict=True)]))

    alone = [score([i]) for i in range(len(candidates))]
    order = sorted(range(len(candidates)), key=lambda i: -alone[i])
    best = max((order[:n] for n in range(1, len(order) + 1)), key=lambda m: round(score(m), 10))
    members, value, since = list(best), score(best), 0
    for _ in range(_STEPS):
        members = [*members, max(range(len(candidates)), key=lambda i: score([*members, i]))]
        since += 1
        if score(members) > value + 1e-12:
            best, value, since = list(members), score(members), 0
        if since == _PATIENCE:
            break
    return np.bincount(best, minlength=len(candidates)) / len(best)


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 4))
@settings(max_examples=30)
def test_greedy_agrees_with_a_naive_implementation(seed, n_candidates, n_folds):
    candidates, judge = problem(seed, n_candidates, n_folds)
    folds = range(n_folds)
    np.testing.assert_allclose(greedy(candidates, judge, folds), naive(candidates, judge, folds), atol=1e-12)


@pytest.mark.parametrize("n_candidates", [1, 2, 5])
def test_no_average_is_scored_twice_however_it_was_reached(n_candidates, monkeypatch):
    """A scorer of scikit-learn's takes milliseconds, and was most of what a small search with an own metric took."""
    candidates, judge = problem(0, n_candidates, 4)
    asked, score = [], judge.score
    known = {}
    monkeypatch.setattr(
        judge, "score", lambda k, a: (asked.append((k, a.round(10).tobytes())), score(k, a))[1]
    )
    bags = [greedy(candidates, judge, [j for j in range(4) if j != k], known) for k in range(4)]
    assert len(asked) == len(set(asked)) == len(known)
    for k, weights in enumerate(bags):
        again = greedy(candidates, judge, [j for j in range(4) if j != k])
        np.testing.assert_allclose(weights, again, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 4), st.sampled_from([0.0, 0.1, 10.0]))
@settings(max_examples=30)
def test_it_is_never_worse_than_the_best_alone_and_weights_sum_to_one(seed, n_candidates, n_folds, noise):
    candidates, judge = problem(seed, n_candidates, n_folds, noise)
    folds = range(n_folds)
    weights = greedy(candidates, judge, folds)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    average = [sum(w * own[k] for w, own in zip(weights, candidates, strict=True)) for k in folds]
    found = np.mean([judge.score(k, average[k]) for k in folds])
    alone = [np.mean([judge.score(k, own[k]) for k in folds]) for own in candidates]
    assert found >= max(alone) - 1e-12
    chosen = select(candidates, judge)
    assert chosen.weights.sum() == pytest.approx(1)
    again = [sum(w * own[k] for w, own in zip(chosen.weights, candidates, strict=True)) for k in folds]
    np.testing.assert_allclose(chosen.scores, [judge.score(k, again[k]) for k in folds])
    if n_folds < 3:
        assert chosen.score == pytest.approx(found)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4), st.sampled_from([0.1, 1.0]))
@settings(max_examples=30)
def test_what_rows_cannot_tell_from_the_best_weighs_the_same(seed, n_candidates, n_folds, noise):
    candidates, judge = problem(seed, n_candidates, n_folds, noise)
    judge = Rows(judge.targets)
    alone = [np.mean([judge.score(k, own[k]) for k in range(n_folds)]) for own in candidates]
    best = int(np.argmax(alone))
    expected = []
    for own in candidates:
        mean, variance = 0.0, 0.0
        parts = []
        for k in range(n_folds):
            losses, weights = judge.row_losses(k, own[k])
            parts.append((losses - judge.row_losses(k, candidates[best][k])[0], weights / n_folds))
        mean = sum(float(d @ w) for d, w in parts)
        variance = sum(float(((d - mean) ** 2) @ w**2) for d, w in parts)
        expected.append(mean <= 2 * math.sqrt(variance))
    found = indistinct(candidates, judge)
    np.testing.assert_array_equal(found, expected)
    assert found[best]
    chosen = select(candidates, judge)

    def score_of(which):
        return np.mean([judge.score(k, np.mean([own[k] for own in which], axis=0)) for k in range(n_folds)])

    wanted = np.flatnonzero(expected)
    if len(wanted) < 3:
        places = sorted({*wanted, *sorted(range(n_candidates), key=lambda i: -alone[i])[:3]})
        of_all, of_found = (score_of([candidates[i] for i in some]) for some in (places, wanted))
        wanted = places if of_all >= of_found - 0.01 * abs(of_found) else wanted
    np.testing.assert_allclose(chosen.weights, np.isin(range(n_candidates), wanted) / len(wanted))
    average = [
        sum(w * own[k] for w, own in zip(chosen.weights, candidates, strict=True)) for k in range(n_folds)
    ]
    np.testing.assert_allclose(chosen.scores, [judge.score(k, average[k]) for k in range(n_folds)])


def test_a_twin_of_the_best_is_in_and_what_is_worse_in_every_row_is_not():
    rng = np.random.default_rng(0)
    targets = [rng.normal(size=50), rng.normal(size=40)]
    best = [t + 0.1 * rng.normal(size=len(t)) for t in targets]
    other = [t + 0.1 * rng.normal(size=len(t)) for t in targets]
    worse = [t + 2 * (b - t) for t, b in zip(targets, best, strict=True)]
    no_number = [t * np.nan for t in targets]
    found = indistinct([worse, best, no_number, best, other], Rows(targets))
    np.testing.assert_array_equal(found, [False, True, False, True, True])
    assert indistinct([no_number, no_number], Rows(targets)).sum() == 1


@pytest.mark.parametrize(("excess", "n_taken"), [(1.004, 3), (3.0, 1)])
def test_three_are_averaged_though_told_apart_where_that_costs_little(excess, n_taken):
    """One fit of one setting is one draw of its seeds."""
    rng = np.random.default_rng(0)
    targets = [rng.normal(size=500), rng.normal(size=400)]
    errors = [0.1 * rng.normal(size=len(t)) for t in targets]
    found = [[t + e * f for t, e in zip(targets, errors, strict=True)] for f in (excess, 1.0, excess, 60.0)]
    judge = Rows(targets)
    assert indistinct(found, judge).sum() == 1
    np.testing.assert_allclose(
        select(found, judge).weights, [0, 1, 0, 0] if n_taken == 1 else [1 / 3, 1 / 3, 1 / 3, 0]
    )
    no_number = [t * np.nan for t in targets]
    np.testing.assert_array_equal(select([found[1], no_number], judge).weights, [1.0, 0.0])


def test_of_equal_weights_the_better_are_left():
    candidates, judge = problem(5, 6, 3, noise=0.5)
    judge = Rows(judge.targets)
    alone = np.array([np.mean([judge.score(k, own[k]) for k in range(3)]) for own in candidates])
    whole = Selection(np.full(6, 1 / 6), np.zeros(3))
    places = heaviest(whole, candidates, judge, 2)
    assert places == sorted(np.argsort(-alone)[:2])
    left = restricted(whole, candidates, judge, places)
    np.testing.assert_allclose(left.weights[places], 0.5)
    average = [(candidates[places[0]][k] + candidates[places[1]][k]) / 2 for k in range(3)]
    np.testing.assert_allclose(left.scores, [judge.score(k, average[k]) for k in range(3)])
    assert heaviest(left, candidates, judge, 5) == places


def test_with_three_folds_the_selection_is_made_without_each_of_them():
    candidates, judge = problem(3, 5, 4)
    bags = [greedy(candidates, judge, [j for j in range(4) if j != k]) for k in range(4)]
    np.testing.assert_allclose(select(candidates, judge).weights, np.mean(bags, axis=0))


def test_scores_that_are_no_numbers_are_chosen_last():
    candidates, judge = problem(0, 3, 2)
    inner, judge.score = judge.score, None
    judge.score = lambda k, average: inner(k, average) if np.isfinite(average).all() else -np.inf
    candidates[1] = [part * np.nan for part in candidates[1]]
    assert greedy(candidates, judge, range(2))[1] == 0


# ---------------------------------------------------------------------- the judge

CLASSIFIER = InnaClassifier(
    hidden_layer_sizes=(4,), n_members=1, max_epochs=3, numeric_embedding="none", random_state=0
)
REGRESSOR = InnaRegressor(
    hidden_layer_sizes=(4,), n_members=1, max_epochs=3, numeric_embedding="none", random_state=0
)


def trained(load, estimator, weight=None, two=False):
    X, y = load(return_X_y=True, as_frame=True)
    X, y = X.iloc[::2], y.iloc[::2]
    if two:
        y = np.stack([y, y**2], axis=1)
    rows = np.arange(len(X))
    splits = [(rows[rows % 3 != k], rows[rows % 3 == k]) for k in range(3)]
    params = {} if weight is None else {"sample_weight": weight(len(X))}
    table = FoldedTable(estimator, X, y, params.get("sample_weight"), splits, params)
    cohort = Cohort(table, [estimator])
    cohort.run()
    return table, cohort


def own_measure(y, predicted):
    return mean_absolute_error(y, predicted)


CASES = [
    (load_iris, CLASSIFIER, None),
    (load_iris, CLASSIFIER, "accuracy"),
    (load_iris, CLASSIFIER, "roc_auc_ovr"),
    (load_iris, CLASSIFIER, make_scorer(own_measure, greater_is_better=False)),
    (load_diabetes, REGRESSOR, None),
    (load_diabetes, REGRESSOR, "r2"),
    (load_diabetes, REGRESSOR, "neg_mean_absolute_error"),
]


@pytest.mark.parametrize("weight", [None, lambda n: 1.0 + np.arange(n) % 3])
@pytest.mark.parametrize(("load", "estimator", "scoring"), CASES)
def test_the_judge_scores_a_trial_as_the_search_does(load, estimator, scoring, weight):
    if weight is not None and scoring is not None and not isinstance(scoring, str):
        weight = None  # that scorer takes none
    table, cohort = trained(load, estimator, weight)
    scorer = resolve_scorer(estimator, scoring, table.classes)
    judge = Judge(table, scorer)
    needed = judge.needed(cohort.predictions(0))
    np.testing.assert_allclose(
        [judge.score(k, part) for k, part in enumerate(needed)], cohort.scores(0, scorer), rtol=1e-10
    )
    check_rows(judge, needed, known=scoring is None)


def check_rows(judge, needed, *, known):
    """Losses of rows make the score of a fold, where it is one of rows."""
    for k, part in enumerate(needed):
        found = judge.row_losses(k, part)
        assert (found is not None) == known
        if found is not None:
            mean = float(found[0] @ found[1])
            score = judge.score(k, part)
            assert mean == pytest.approx(-score) or mean == pytest.approx(score**2)


def test_several_targets_are_judged():
    table, cohort = trained(load_diabetes, REGRESSOR, two=True)
    scorer = resolve_scorer(REGRESSOR, None, None)
    judge = Judge(table, scorer)
    found = [judge.score(k, part) for k, part in enumerate(judge.needed(cohort.predictions(0)))]
    np.testing.assert_allclose(found, cohort.scores(0, scorer), rtol=1e-10)
    own = cohort.predictions(0)[0]
    losses, _ = judge.row_losses(0, own)
    np.testing.assert_allclose(losses, ((own - table.folds[0].test_target) ** 2).mean(axis=1))


def test_a_score_that_is_none_is_the_worst():
    fold = SimpleNamespace(
        score_params={}, X_test=np.zeros((2, 1)), y_test=np.zeros(2), test_target=np.zeros(2)
    )
    table = SimpleNamespace(folds=[fold], classes=None)
    scorer = make_scorer(lambda y, predicted: float("nan"))
    table.test_part = lambda k: (fold.X_test, fold.y_test, {})
    assert Judge(table, scorer).score(0, np.zeros(2)) == -np.inf
