"""As many nets as a fold of a bag wants; it needs no framework."""

import numpy as np
import pytest

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.plugins.few import with_few_nets


@pytest.mark.parametrize("kind", [InnaClassifier, InnaRegressor])
@pytest.mark.parametrize("n_rows", [20, 300, 3_000, 10_000, 20_000, 100_000])
@pytest.mark.parametrize("settings", [{}, {"max_epochs": 7}, {"early_stopping": False}])
def test_never_more_than_two_nets_nor_than_by_default_and_as_many_epochs(kind, n_rows, settings):
    plan = kind(**settings)._plan_for(n_rows)
    few = with_few_nets(kind(**settings), n_rows)
    assert few._plan_for(n_rows).n_members == min(2, plan.n_members)
    assert few._plan_for(n_rows).max_epochs == plan.max_epochs
    changed = {n for n, value in few.get_params().items() if value != kind(**settings).get_params()[n]}
    assert changed <= {"n_members", "max_epochs"}


def test_so_many_are_trained_with_rows_to_stop_by():
    X = np.random.default_rng(0).normal(size=(60, 2))
    few = with_few_nets(InnaRegressor(hidden_layer_sizes=(4,), max_epochs=3), 40)
    few.fit(X[:40], X[:40, 0], X_val=X[40:], y_val=X[40:, 0])
    assert len(few.members_) == 2
    assert few.n_iter_ <= 3
