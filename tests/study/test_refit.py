"""A function as ``refit``: chooses the settings by what it will, as in scikit-learn's searches."""

import numpy as np
import optuna
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from inna_tune import InnaClassifier, InnaSearchCV, SearchSpace
from inna_tune.space import Categorical
from inna_tune.study.results import choose_row
from tests.study.sending import sent  # noqa: F401  (a fixture)

X, Y = (part.iloc[:120] for part in load_breast_cancer(return_X_y=True, as_frame=True))
NET = InnaClassifier(
    hidden_layer_sizes=(4,), n_members=1, max_epochs=3, numeric_embedding="none", random_state=0
)
CV = StratifiedKFold(2, shuffle=True, random_state=0)
SPACE = SearchSpace({"step_ratio": Categorical([0.1, 1.0, 2.0])})
FIRST = [{"step_ratio": 1.0}, {"step_ratio": 2.0}, {"step_ratio": 0.1}]


def largest_step(results):
    return int(np.argmax([each["step_ratio"] for each in results["params"]]))


def search(estimator=NET, **changes):
    given = {"n_trials": 3, "cv": CV, "random_state": 0, "first": FIRST, "refit": largest_step}
    given |= {"pruner": optuna.pruners.NopPruner(), "population": 1}
    return InnaSearchCV(estimator, SPACE, **(given | changes))


@pytest.mark.parametrize("scoring", ["accuracy", ["roc_auc", "accuracy"]])
def test_it_chooses_as_in_scikit_learns_searches(scoring):
    given = []

    def choose(results):
        given.append(results)
        return largest_step(results)

    found = search(scoring=scoring, refit=choose).fit(X, Y)
    grid = [{name: [value] for name, value in each.items()} for each in found.cv_results_["params"]]
    theirs = GridSearchCV(NET, grid, cv=CV, scoring=scoring, refit=choose).fit(X, Y)
    assert {key for key in given[1] if "_test_" in key} == {key for key in given[0] if "_test_" in key}
    assert found.best_index_ == theirs.best_index_ == 1
    assert found.best_params_ == theirs.best_params_ == {"step_ratio": 2.0}
    assert not hasattr(found, "best_score_")
    assert not hasattr(theirs, "best_score_")
    assert np.array_equal(found.predict_proba(X), theirs.predict_proba(X))
    assert found.cv_results_[f"rank_test_{'score' if scoring == 'accuracy' else 'roc_auc'}"][1] != 1


def test_a_score_of_an_earlier_fit_does_not_stay():
    found = search(refit=True).fit(X, Y)
    assert found.best_index_ != 1
    found.set_params(refit=largest_step).fit(X, Y)
    assert not hasattr(found, "best_score_")
    assert clone(found).refit is largest_step


def test_the_nets_of_a_trial_that_is_a_fit_are_the_model():
    estimator = clone(NET).set_params(n_members="auto", random_state=None)
    found = search(estimator, cv="members").fit(X, Y)
    assert found.best_params_ == {"step_ratio": 2.0}
    seed = found.study_.trials[1].user_attrs["seed"]
    plain = clone(estimator).set_params(step_ratio=2.0, random_state=seed).fit(X, Y)
    np.testing.assert_allclose(found.predict_proba(X), plain.predict_proba(X), rtol=1e-6, atol=1e-9)


def test_workers_need_not_know_of_it(tmp_path, sent):  # noqa: F811
    where = {"storage": f"sqlite:///{tmp_path}/s.db", "n_jobs": 2}
    found = search(refit=lambda results: largest_step(results), **where).fit(X, Y)
    assert found.best_params_ == {"step_ratio": 2.0}


ROWS = {
    "number": np.array([4, 5, 7, 8]),
    "state": np.array(["COMPLETE", "PRUNED", "FAIL", "CUT"]),
}


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        (1.0, TypeError, "whole number; it gave 1.0"),
        (True, TypeError, "whole number; it gave True"),
        (None, TypeError, "whole number; it gave None"),
        (-1, IndexError, "row -1 .* rows 0 to 3"),
        (4, IndexError, "row 4 .* rows 0 to 3"),
        (1, ValueError, "row 1 .* trial 5, whose state is PRUNED.*nanargmax.*NopPruner"),
        (2, ValueError, "row 2 .* trial 7, whose state is FAIL"),
    ],
)
def test_what_is_no_row_with_a_score_is_refused(row, error, words):
    with pytest.raises(error, match=f"refit: the function .*{words}"):
        choose_row(lambda results: row, ROWS)


@pytest.mark.parametrize("row", [0, np.int64(0), np.uint8(3)])
def test_any_whole_number_of_a_row_with_a_score_is_taken(row):
    found = choose_row(lambda results: row, ROWS)
    assert found == row
    assert type(found) is int


def test_a_study_whose_function_chose_wrongly_goes_on_with_another(tmp_path):
    class Pruner(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1

    where = {"storage": f"sqlite:///{tmp_path}/s.db", "study_name": "one", "pruner": Pruner()}
    found = search(refit=lambda results: int(np.argmax(results["mean_test_score"])), **where)
    with pytest.raises(ValueError, match="trial 1, whose state is PRUNED"):
        found.fit(X, Y)
    found.set_params(refit=lambda results: int(np.nanargmax(results["mean_test_score"])), resume=True)
    assert found.fit(X, Y).best_index_ in (0, 2)
    assert found.best_index_ == found.cv_results_["rank_test_score"].argmin()
