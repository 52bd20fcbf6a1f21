"""Every kind of tabular net trained by the engine: against autograd, and in other company."""

import numpy as np
import pytest
import torch

from inna_tune.engine import (
    CrossEntropy,
    Member,
    Method,
    SquaredError,
    TableTensors,
    Training,
    stepping,
)
from inna_tune.nets import TabularNet
from tests.engine import tables

N_ROWS, N_NUMERIC, N_OTHERS = 90, 3, 2
CATEGORIES = (4, 7)


def make_table(dtype=torch.float64, **options):
    return tables.make_table(N_ROWS, N_NUMERIC + N_OTHERS, categories=CATEGORIES, dtype=dtype, **options)


def make_members(n):
    order = np.random.default_rng(0).permutation(N_ROWS)
    return [
        Member(
            order[: 60 - 7 * i], order[65:], i, lr=0.03 * (i + 1), alpha=0.5, beta=0.1,
            dropout=0.2 * (i % 2), weight_decay=0.01 * i, patience=3,
            used_features=(N_NUMERIC - (i == 1), N_OTHERS - (i == 2)),
        )
        for i in range(n)
    ]  # fmt: skip


NETS = {
    "plain": {},
    "codes": {"categories": CATEGORIES},
    "periodic": {"categories": CATEGORIES, "numeric_embedding": "periodic"},
    "pbld": {"categories": CATEGORIES, "numeric_embedding": "pbld"},
    "piecewise": {"categories": CATEGORIES, "numeric_embedding": "piecewise", "evenness": 0.4},
    "residual": {"categories": CATEGORIES, "block": "residual", "activation": "silu"},
    "gelu": {"categories": CATEGORIES, "numeric_embedding": "pbld", "activation": "gelu"},
}


def make_net(options):
    width = N_NUMERIC + N_OTHERS + (len(CATEGORIES) if "categories" in options else 0)
    return TabularNet(width, (8, 6), 3, n_numeric=N_NUMERIC, **options)


def padded(table, net, members):
    """Columns that a member does not have hold zeros: here, each member trains on a copy of the table of its own."""
    x = table.x[:, : net.in_features].clone()
    for numeric, others in {m.used_features for m in members}:
        x[:, numeric:N_NUMERIC] = 0
        x[:, N_NUMERIC + others : N_NUMERIC + N_OTHERS] = 0
    return TableTensors(x, table.target)


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_a_member_does_not_depend_on_its_company(options, dtype, tolerance):
    net, members = make_net(options), make_members(4)
    table = padded(make_table(dtype), net, members)

    def train(some):
        training = Training(net, table, some, CrossEntropy(), batch_size=16, max_epochs=10)
        training.run()
        return training.results

    for member, result in zip(members, train(members), strict=True):
        (alone,) = train([member])
        torch.testing.assert_close(result.weights, alone.weights, rtol=10 * tolerance, atol=tolerance)
        assert (result.epochs, result.best_epoch) == (alone.epochs, alone.best_epoch)


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
@pytest.mark.parametrize("regression", [False, True])
def test_passes_written_out_are_autograds(options, regression, monkeypatch):
    net, members = make_net(options), make_members(3)
    table = padded(make_table(regression=regression), net, members)
    loss = SquaredError() if regression else CrossEntropy()

    def run():
        method = Method(averaging=0.9)
        training = Training(net, table, members, loss, batch_size=16, max_epochs=5, method=method, width=3)
        training.run()
        return [r.weights for r in training.results]

    found = run()
    monkeypatch.setattr(stepping.TabularNet, "is_trunk_plain", False)
    for mine, autograds in zip(found, run(), strict=True):
        torch.testing.assert_close(mine, autograds, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_company_and_width_change_no_bit(options, dtype):
    """With whole vectors: rows of a batch a multiple of 32, hidden layers of 16."""
    order = np.random.default_rng(0).permutation(N_ROWS)
    members = [
        Member(
            order[: 60 - 7 * i], order[65:], i, lr=0.05 * (i + 1), alpha=0.5, beta=0.2, dropout=0.1 * (i % 2)
        )
        for i in range(4)
    ]
    width = N_NUMERIC + N_OTHERS + (len(CATEGORIES) if "categories" in options else 0)
    net = TabularNet(width, (32, 16), 3, n_numeric=N_NUMERIC, **options)
    table = make_table(dtype)
    table = TableTensors(table.x[:, :width].clone(), table.target)

    def train(some, stack):
        training = Training(
            net, table, some, CrossEntropy(), batch_size=32, max_epochs=8, width=stack, stacked=True,
            method=Method(averaging=0.9),
        )  # fmt: skip
        training.run()
        return training.results

    expected = train(members, 4)
    for stack in (1, 2, 3):
        for member, other in zip(train(members, stack), expected, strict=True):
            assert torch.equal(member.weights, other.weights)
    for i in (1, 3):
        (alone,) = train([members[i]], 1)
        assert torch.equal(alone.weights, expected[i].weights)
