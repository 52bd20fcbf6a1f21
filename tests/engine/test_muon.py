"""Muon of stacked members against torch's, member by member and matrix by matrix."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inna_tune.engine import CrossEntropy, Member, Method, TableTensors, Training
from inna_tune.nets import ModuleNet, TabularNet
from inna_tune.nets.protocol import Matrix
from inna_tune.optim._muon import StackedMuon, orthogonalized
from inna_tune.optim.optimizers import OPTIMIZERS

from .test_method import make_members, make_table, train


@pytest.fixture
def in_float64(monkeypatch):
    """Let torch's Muon compute its products in float64, as here, and not in bfloat16."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.double().clone())


def by_singular_values(matrix, steps, coefficients=(3.4445, -4.7750, 2.0315)):
    """What the iteration is meant to do: a polynomial of the singular values."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / max(np.linalg.norm(s), 1e-7)
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return u * s @ v


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 4),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    steps=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_singular_values_become_what_the_polynomial_says(count, rows, columns, steps, seed):
    matrices = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, rows, columns)))
    found = orthogonalized(matrices, steps=steps)
    for one, other in zip(matrices.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(other, by_singular_values(one, steps), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (17, 17), (1, 6), (6, 1)])
def test_nothing_of_a_matrix_depends_on_the_others_nor_on_what_is_zero(shape):
    matrices = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    together = orthogonalized(matrices)
    for one, other in zip(matrices, together, strict=True):
        assert torch.equal(orthogonalized(one[None])[0], other)
    wider = torch.cat([matrices, torch.zeros(5, 4, shape[1])], 1)
    found = orthogonalized(wider)
    assert not found[:, shape[0] :].any()
    torch.testing.assert_close(found[:, : shape[0]], together, rtol=1e-4, atol=1e-5)
    assert not orthogonalized(torch.zeros_like(matrices)).any()


OPTIONS = [
    {},
    {"adjust_lr_fn": "original"},
    {"adjust_lr_fn": None, "nesterov": False},
    {"momentum": 0.5, "ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5), "eps": 1e-5},
]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("input_axis", [0, 1])
def test_members_step_as_torchs_muon_steps_each_matrix(options, shape, input_axis):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    row = torch.nn.Parameter(start.reshape(3, -1).clone())
    lr = torch.tensor([[0.1], [0.01], [0.0]], dtype=torch.float64)
    decay = torch.tensor([[0.0], [0.5], [0.1]], dtype=torch.float64)
    settings = {**OPTIMIZERS["muon"].options, "lr": lr, "weight_decay": decay, **options}
    stacked = StackedMuon([row], matrices={0: Matrix(shape, input_axis)}, **settings)
    # torch's matrices are [outputs, inputs].
    turned = [m.T.clone() if input_axis == 0 else m.clone() for m in start]
    weights = [torch.nn.Parameter(m) for m in turned]
    others = [
        torch.optim.Muon(
            [w],
            lr=float(lr[i]),
            weight_decay=float(decay[i]),
            **{"adjust_lr_fn": "match_rms_adamw", **options},
        )
        for i, w in enumerate(weights)
    ]
    for _ in range(4):
        gradient = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
        row.grad = gradient.reshape(3, -1)
        stacked.step()
        for weight, optimizer, own in zip(weights, others, gradient, strict=True):
            weight.grad = own.T.clone() if input_axis == 0 else own.clone()
            optimizer.step()
    for i, weight in enumerate(weights):
        expected = weight.detach().T if input_axis == 0 else weight.detach()
        torch.testing.assert_close(row.detach()[i].view(shape), expected, rtol=1e-10, atol=1e-12)


def test_torchs_own_precision_makes_nearly_the_same_step():
    matrix = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.zeros(8, 5))
    weight.grad = matrix.clone()
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0, adjust_lr_fn="original").step()
    ours = -((8 / 5) ** 0.5) * orthogonalized(matrix[None])[0]
    torch.testing.assert_close(weight.detach(), ours, rtol=0.05, atol=0.05)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", ["muon", torch.optim.Muon])
@pytest.mark.parametrize("stacked", [False, True])
def test_one_member_is_muon_on_its_hidden_layers_and_adamw_on_the_rest(optimizer, stacked):
    member = replace(make_members(2)[1], validation_rows=np.arange(0), weight_decay=0.01, lr=0.02)
    table, net = make_table(), TabularNet(5, (8, 6), 3)
    (result,) = train([member], Method(optimizer, {"momentum": 0.9}), epochs=4, stacked=stacked)
    seeds = [int(s >> np.uint64(1)) for s in np.random.SeedSequence(1).generate_state(4, np.uint64)]
    start = net.initialize(torch.Generator().manual_seed(seeds[0]), dtype=torch.float64)
    # As layers of torch: [outputs, inputs].
    hidden = {n: torch.nn.Parameter(start[n].T.clone()) for n in ("layers.0.weight", "layers.1.weight")}
    rest = {n: torch.nn.Parameter(v.clone()) for n, v in start.items() if n not in hidden}
    optimizers = [
        torch.optim.Muon(
            hidden.values(), lr=0.02, weight_decay=0.01, momentum=0.9, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest.values(), lr=0.02, weight_decay=0.01),
    ]
    stream, rows = torch.Generator().manual_seed(seeds[1]), torch.from_numpy(member.train_rows)
    for _ in range(4):
        for batch in rows[torch.randperm(len(rows), generator=stream)].split(16):
            weights = {n: hidden[n].T[None] if n in hidden else rest[n][None] for n in start}
            output = net(weights, table.x[batch][None])[0]
            for each in optimizers:
                each.zero_grad()
            torch.nn.functional.cross_entropy(output, table.target[batch]).backward()
            for each in optimizers:
                each.step()
    expected = [hidden[n].detach().T if n in hidden else rest[n].detach() for n in start]
    torch.testing.assert_close(
        result.weights, torch.cat([w.reshape(-1) for w in expected]), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("block", ["plain", "residual"])
def test_padding_of_the_inputs_changes_nothing(block):
    """Folds of a study have unequal numbers of columns, and are padded to the widest."""
    table, order = make_table(), np.random.default_rng(0).permutation(100)

    def trained(width, used):
        x = torch.zeros(100, width, dtype=torch.float64)
        x[:, :5] = table.x
        member = Member(order[:70], order[70:], 0, lr=0.02, weight_decay=0.1, used_features=used)
        training = Training(
            TabularNet(width, (4, 6), 3, block=block),
            TableTensors(x, table.target),
            [member, replace(member, seed=1, lr=0.1)],
            CrossEntropy(),
            batch_size=16,
            max_epochs=5,
            method=Method("muon"),
        )
        # Another stepping is made when a member leaves.
        training.run(2)
        training.drop([1])
        training.run()
        return training.results[0]

    alone, padded = trained(5, 5), trained(30, 5)
    assert padded.best_loss == pytest.approx(alone.best_loss, rel=1e-9)
    first = padded.weights[: 30 * 4].view(30, 4)
    assert not first[5:].any()
    torch.testing.assert_close(first[:5].reshape(-1), alone.weights[: 5 * 4], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(padded.weights[30 * 4 :], alone.weights[5 * 4 :], rtol=1e-9, atol=1e-11)


class Own(torch.nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.levels = torch.nn.Embedding(3, 4)
        self.first, self.norm = torch.nn.Linear(in_features, 4), torch.nn.LayerNorm(4)
        self.second, self.head = torch.nn.Linear(4, 6), torch.nn.Linear(6, out_features)
        self.frozen = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def forward(self, x):
        hidden = self.norm(self.first(x)).relu() + self.levels.weight[0]
        return self.head(self.second(hidden).relu())


def test_of_a_module_the_hidden_layers_are_found():
    assert ModuleNet(Own, 5, 3).matrices == {
        "first.weight": Matrix((4, 5), 1),
        "second.weight": Matrix((6, 4), 1),
    }
    assert ModuleNet(torch.nn.Linear, 5, 3).matrices == {}
    assert TabularNet(5, (), 3).matrices == {}
    residual = TabularNet(5, (8, 6), 3, block="residual", n_numeric=2, numeric_embedding="piecewise").matrices
    assert list(residual) == ["layers.0.weight", "layers.1.weight", "layers.2.weight"]
    assert [m.is_padded for m in residual.values()] == [True, False, False]


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"ns_steps": 100},
        {"ns_steps": 0},
        {"eps": -1.0},
        {"ns_coefficients": (1.0, 2.0)},
        {"adjust_lr_fn": "longer"},
        {"betas": (0.9,)},
        {"momentum": "much"},
    ],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["muon", torch.optim.Muon])
def test_options_out_of_range_are_named(optimizer, options):
    with pytest.raises(ValueError, match=r"optimizer='muon' with optimizer_params=.*choose one of inna"):
        Method(optimizer, options)
