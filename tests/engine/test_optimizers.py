"""What every optimizer of the table keeps; tests/engine/test_progress.py breaks off each and goes on with it."""

from dataclasses import replace

import pytest
import torch

from inna_tune.engine import CrossEntropy, Method, Training
from inna_tune.nets import TabularNet
from inna_tune.optim.optimizers import OPTIMIZERS, record_of
from tests.engine.test_training import N_CLASSES, N_COLUMNS, make_member, make_table

EPOCHS = 5


def train(members, name, *, table=None, n_columns=N_COLUMNS, options=None, until=None):
    training = Training(
        TabularNet(n_columns, (8, 6), N_CLASSES),
        make_table() if table is None else table,
        members,
        CrossEntropy(),
        batch_size=16,
        max_epochs=EPOCHS,
        method=Method(name, options or {}),
        width=len(members),
        stacked=True,
    )
    training.run(until)
    return training


def members_of(name, *, lr=0.01):
    own = {"lr": lr, "alpha": 0.1, "beta": 0.9, "weight_decay": 0.01}
    return [make_member(seed, n_train=40 - 9 * seed, **own) for seed in range(3)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_open_settings_learn(name):
    (result,) = train([make_member(1, lr=None, alpha=None, beta=None)], name).results
    assert result.history["train_loss"][-1] < result.history["train_loss"][0]
    record = OPTIMIZERS[name]
    assert (result.curvature is not None) == record.is_calibrated
    for setting in ("lr", "alpha", "beta"):
        used = getattr(result, setting)
        usual = record.usual.get(setting, float("nan"))
        if usual is None:
            assert 0 < used < float("inf")
        else:
            assert used == pytest.approx(usual, nan_ok=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_options_are_by_default_what_the_table_says(name):
    members = members_of(name)
    given = train(members, name, options=dict(OPTIMIZERS[name].options)).results
    for ours, theirs in zip(given, train(members, name).results, strict=True):
        assert torch.equal(ours.weights, theirs.weights)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_option_of_another_is_refused_with_those_there_are(name):
    with pytest.raises(
        ValueError, match=f"nonsense is none of the options of optimizer='{name}'; it has"
    ) as error:
        Method(name, {"nonsense": 1})
    assert all(option in str(error.value) for option in OPTIMIZERS[name].options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_members_that_are_dropped_leave_the_others_as_they_are(name):
    members = members_of(name)
    whole, parted = train(members, name), train(members, name, until=2)
    parted.drop([1])
    assert parted.active == [0, 2]
    parted.run()
    assert [r.stop_reason for r in parted.results] == ["max_epochs", "dropped", "max_epochs"]
    assert parted.results[1].epochs == 2
    for place in (0, 2):
        assert torch.equal(parted.results[place].weights, whole.results[place].weights)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_member_whose_step_is_zero_stands_still(name):
    still, other = members_of(name)[:2]
    found = train([replace(still, lr=0.0), other], name)
    begun = train([replace(still, lr=0.0), other], name, until=1)
    assert torch.equal(found.results[0].weights, begun.best_weights(0))
    assert torch.equal(found.results[1].weights, train([still, other], name).results[1].weights)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if OPTIMIZERS[name].is_elementwise])
def test_columns_of_zeros_change_nothing(name):
    members = members_of(name)
    table = make_table()
    wider = replace(table, x=torch.cat([table.x, torch.zeros(len(table.x), 2, dtype=table.x.dtype)], 1))
    padded = [replace(m, used_features=N_COLUMNS) for m in members]
    found = train(padded, name, table=wider, n_columns=N_COLUMNS + 2).results
    for ours, theirs in zip(found, train(members, name).results, strict=True):
        assert ours.history["train_loss"] == pytest.approx(theirs.history["train_loss"], rel=1e-10)


def test_a_class_of_torch_has_a_record_of_its_own():
    record = record_of(torch.optim.NAdam)
    assert record.build is None
    assert not record.is_elementwise
    assert not record.is_calibrated
    assert record.usual == {"lr": 2e-3}
    assert {"betas", "momentum_decay"} <= set(record.options)
    assert record_of(torch.optim.Muon) is OPTIMIZERS["muon"]
