"""n_jobs: threads of a fit, and nothing of it is left."""

import numpy as np
import pytest
import torch
from joblib import cpu_count
from sklearn.base import clone
from sklearn.datasets import make_classification
from threadpoolctl import threadpool_info

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.engine.stack import Stack
from inna_tune.estimators.threads import n_threads

X, Y = make_classification(60, 4, random_state=0)
OWN = {"hidden_layer_sizes": (4,), "max_epochs": 2, "n_members": 1, "random_state": 0}
both = pytest.mark.parametrize(
    "net", [InnaClassifier(**OWN), InnaRegressor(**OWN)], ids=lambda n: type(n).__name__
)


def blas():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


@pytest.fixture
def used(monkeypatch):
    """Torch's and numpy's threads in every epoch, and at most how many torch uses in a training."""
    found = []
    run = Stack.run

    def note(self, *args, **kwargs):
        found.append((torch.get_num_threads(), blas()))
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Stack, "run", note)
    return found


@both
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_a_fit_uses_so_many_and_puts_back_what_was(net, n_jobs, used):
    before = torch.get_num_threads(), blas()
    model = clone(net).set_params(n_jobs=n_jobs)
    for call in (model.fit, model.partial_fit):
        call(X, Y)
        assert (torch.get_num_threads(), blas()) == before
    model.predict(X)
    assert (torch.get_num_threads(), blas()) == before
    assert all(1 <= threads <= n_jobs and set(of_blas) <= {n_jobs} for threads, of_blas in used)
    assert used


@both
def test_what_was_is_put_back_when_training_fails(net, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no luck")

    before = torch.get_num_threads(), blas()
    monkeypatch.setattr(Stack, "run", fail)
    with pytest.raises(RuntimeError, match="no luck"):
        clone(net).set_params(n_jobs=2).fit(X, Y)
    assert (torch.get_num_threads(), blas()) == before


def test_negative_numbers_count_from_all_cores():
    assert [n_threads(n) for n in (None, 1, 5, -1)] == [None, 1, 5, cpu_count()]
    assert n_threads(-cpu_count() - 7) == 1


@both
def test_the_number_changes_no_result(net):
    one, none = (clone(net).set_params(n_jobs=n).fit(X, Y) for n in (1, None))
    np.testing.assert_allclose(one.predict(X), none.predict(X))
