import logging
import pickle
import random

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from joblib.externals.loky.backend.reduction import dumps
from torch import nn

from inna_tune.engine.batches import TableTensors
from inna_tune.engine.losses import CrossEntropy
from inna_tune.engine.members import Member
from inna_tune.engine.training import Training
from inna_tune.nets import ModuleNet
from inna_tune.nets.factory import named_tensors, seeded
from inna_tune.optim.calibration import curvature
from tests.nets.modules import (
    ALONE,
    IN,
    OUT,
    STACKED,
    WRITING,
    Attention,
    Branching,
    Recurrent,
    Tied,
    convolution,
    dropping,
    frozen_features,
    mlp,
    normalized,
)

P, B = 3, 6


# ---------------------------------------------------------------------- helpers


def draw(net, n_members=P, dtype=torch.float32):
    """Stacked tensors, leaves where trained."""
    drawn = [net.initialize(torch.Generator().manual_seed(s), dtype=dtype) for s in range(n_members)]
    return {
        name: torch.stack([d[name] for d in drawn]).requires_grad_(name not in net.buffers)
        for name in net.parameter_shapes
    }


def plain(net, parameters, member):
    """The member as a plain module."""
    module = net.factory(net.in_features, net.out_features).double()
    with torch.no_grad():
        for name, tensor in named_tensors(module).items():
            tensor.copy_(parameters[name][member])
    return module


def rows(dtype=torch.float64, n_rows=B, n_members=P, seed=5):
    return torch.rand(n_members, n_rows, IN, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def trained(net, parameters):
    return [parameters[name] for name in net.parameter_shapes if name not in net.buffers]


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# ---------------------------------------------------------------------- each member is its module


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("factory", STACKED + ALONE)
def test_each_member_is_its_module_alone(factory, training):
    net = ModuleNet(factory, IN, OUT)
    parameters, x = draw(net, dtype=torch.float64), rows()
    given = x.clone()
    output = net(parameters, given, training=training)
    assert output.shape == (P, B, OUT)
    assert torch.equal(given, x)
    gradients = torch.autograd.grad(output.square().sum(), trained(net, parameters))
    for member in range(P):
        module = plain(net, parameters, member).train(training)
        expected = module(x[member].clone())
        torch.testing.assert_close(output[member], expected)
        own = torch.autograd.grad(
            expected.square().sum(), [p for p in module.parameters() if p.requires_grad]
        )
        for found, one in zip(gradients, own, strict=True):
            torch.testing.assert_close(found[member], one)


@pytest.mark.parametrize("factory", [mlp, convolution, Attention, Tied, normalized, Branching])
def test_curvature_of_a_stack_is_that_of_its_members(factory):
    net = ModuleNet(factory, IN, OUT)
    parameters, x = draw(net, dtype=torch.float64), rows()
    measured = curvature(
        lambda: net(parameters, x).square().sum(), trained(net, parameters), member_axis=True, seed=[0, 1, 2]
    )
    assert measured.isfinite().all()
    for member in range(P):
        one = {
            n: p[member : member + 1].detach().clone().requires_grad_(n not in net.buffers)
            for n, p in parameters.items()
        }
        alone = curvature(lambda one=one, m=member: net(one, x[m : m + 1]).square().sum(),
                          trained(net, one), member_axis=True, seed=[member])  # fmt: skip
        torch.testing.assert_close(measured[member : member + 1], alone)


def test_only_what_vmap_can_do_is_stacked(caplog):
    for factory in [*STACKED, dropping]:
        assert ModuleNet(factory, IN, OUT).stacked == {False: True, True: True}
    assert not warnings_of(caplog)
    assert ModuleNet(Recurrent, IN, OUT).stacked == {False: False, True: False}
    assert len(warnings_of(caplog)) == 1
    assert ModuleNet(normalized, IN, OUT).stacked == {False: True, True: False}


def test_tied_weights_are_one_tensor():
    net = ModuleNet(Tied, IN, OUT)
    assert [n for n in net.parameter_shapes if n.startswith(("up", "again"))] == ["up.weight"]


def test_frozen_parameters_and_integers_are_buffers_after_the_trained():
    net = ModuleNet(frozen_features, IN, OUT)
    assert list(net.parameter_shapes) == ["2.weight", "2.bias", "0.weight", "0.bias"]
    assert net.buffers == {"0.weight", "0.bias"}
    net = ModuleNet(Attention, IN, OUT)
    assert net.buffers == {"last", "visible"}
    assert all(v.dtype == torch.float64 for v in draw(net, dtype=torch.float64).values())


def test_a_module_that_fails_in_a_stack_later_goes_on_one_by_one(caplog):
    net = ModuleNet(Branching, IN, OUT)
    assert net.stacked[True]
    parameters = draw(net)
    for _ in range(2):
        net(parameters, rows(torch.float32), training=True)
        net(parameters, rows(torch.float32))
    assert not net.stacked[True]
    (message,) = warnings_of(caplog)
    assert "Branching" in message
    assert "data-dependent" in message


# ---------------------------------------------------------------------- buffers


@pytest.mark.parametrize("shared_storage", [False, True])
@pytest.mark.parametrize("factory", WRITING)
def test_running_statistics_are_each_members_own(factory, shared_storage, caplog):
    net = ModuleNet(factory, IN, OUT)
    (message,) = warnings_of(caplog)
    assert "one by one in training" in message
    assert "writes its buffers in place" in message
    assert net.mixes_rows
    parameters = draw(net, dtype=torch.float64)
    if shared_storage:  # as the population keeps them: views of one matrix, one version counter
        flat = torch.cat([p.detach().reshape(P, -1) for p in parameters.values()], 1)
        parts = flat.split([p[0].numel() for p in parameters.values()], 1)
        parameters = {
            name: part.view(parameters[name].shape).detach().requires_grad_(name not in net.buffers)
            for name, part in zip(parameters, parts, strict=True)
        }
    modules = [plain(net, parameters, member).train() for member in range(P)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in modules]
    for step in range(4):
        x = rows(seed=step)
        gradients = torch.autograd.grad(
            net(parameters, x, training=True).square().sum(), trained(net, parameters)
        )
        with torch.no_grad():
            for parameter, gradient in zip(trained(net, parameters), gradients, strict=True):
                parameter -= 0.1 * gradient
        for module, optimizer, batch in zip(modules, optimizers, x, strict=True):
            optimizer.zero_grad()
            module(batch).square().sum().backward()
            optimizer.step()
    for member, module in enumerate(modules):
        for name, tensor in named_tensors(module).items():
            torch.testing.assert_close(parameters[name][member], tensor, check_dtype=False)
    x = rows()
    torch.testing.assert_close(
        net(parameters, x), torch.stack([m.eval()(b) for m, b in zip(modules, x, strict=True)])
    )
    assert len(warnings_of(caplog)) == 1


def test_evaluation_leaves_buffers():
    net = ModuleNet(normalized, IN, OUT)
    parameters = draw(net)
    before = {n: t.detach().clone() for n, t in parameters.items()}
    net(parameters, rows(torch.float32))
    assert all(torch.equal(parameters[n], before[n]) for n in before)


def test_a_short_members_padding_is_not_seen():
    net = ModuleNet(normalized, IN, OUT)
    together, alone = draw(net), draw(net)
    x = rows(torch.float32)
    output = net(together, x, training=True, counts=[B, 2, 0])
    one = {n: t[1:2] for n, t in alone.items()}
    torch.testing.assert_close(output[1:2, :2], net(one, x[1:2, :2], training=True))
    assert not output[2].any()
    for name in net.buffers:
        torch.testing.assert_close(together[name][1], one[name][0])
        assert torch.equal(together[name][2], alone[name][2])
    assert net.minimum_rows == 2
    with pytest.raises(ValueError, match="batch_size"):
        net(together, x, training=True, counts=[B, 1, B])


def test_integers_that_the_dtype_cannot_hold_are_refused():
    class Numbered(nn.Linear):
        def __init__(self, in_features, out_features):
            super().__init__(in_features, out_features)
            self.register_buffer("number", torch.tensor(2**24 + 1))

    net = ModuleNet(Numbered, IN, OUT)
    assert net.initialize(torch.Generator(), dtype=torch.float64)["number"] == 2**24 + 1
    with pytest.raises(ValueError, match="'number' holds integers that torch.float32 cannot represent"):
        net.initialize(torch.Generator())


# ---------------------------------------------------------------------- random numbers


def noisy_start(in_features, out_features):
    """Draws from all three global streams."""
    module = nn.Linear(in_features, out_features)
    with torch.no_grad():
        module.weight += random.random() + np.random.rand()  # noqa: NPY002
    return module


def test_members_draw_their_start_from_their_own_stream():
    net = ModuleNet(noisy_start, IN, OUT)
    first, again, other = (net.initialize(torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first["weight"], again["weight"])
    assert not torch.equal(first["weight"], other["weight"])
    double = net.initialize(torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(double["weight"].float(), first["weight"])


@pytest.mark.parametrize("factory", [noisy_start, dropping, normalized])
def test_global_streams_stay_as_they_are(factory):
    def state():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before = state()
    net = ModuleNet(factory, IN, OUT)
    parameters = draw(net)
    net(parameters, rows(torch.float32))
    assert state() == before
    net(parameters, rows(torch.float32), training=True)
    assert (state() != before) == net.draws


def test_dropout_differs_between_members():
    net = ModuleNet(dropping, IN, OUT)
    assert net.draws
    one = net.initialize(torch.Generator().manual_seed(0))
    parameters = {n: t.expand(2, *t.shape) for n, t in one.items()}
    x = rows(torch.float32, n_members=1).expand(2, -1, -1)
    with seeded(3):
        output = net(parameters, x, training=True)
    with seeded(3):
        assert torch.equal(net(parameters, x, training=True), output)
    assert not torch.allclose(output[0], output[1])
    calm = net(parameters, x)
    torch.testing.assert_close(calm[0], calm[1])


# ---------------------------------------------------------------------- as an object


def test_survives_pickling(caplog):
    for factory in (mlp, normalized):
        net = ModuleNet(factory, IN, OUT)
        copy = pickle.loads(pickle.dumps(net))
        parameters, x = draw(net), rows(torch.float32)
        assert torch.equal(copy(parameters, x), net(parameters, x))
        assert (copy.buffers, copy.stacked, copy.widest) == (net.buffers, net.stacked, net.widest)
    assert len(warnings_of(caplog)) == 1
    assert len({net, copy}) == 2


def test_goes_to_other_processes_with_a_factory_of_the_moment():
    net = ModuleNet(lambda a, b: nn.Linear(a, b), IN, OUT)
    parameters = {n: t.detach() for n, t in draw(net).items()}
    found = pickle.loads(dumps(net))(parameters, rows(torch.float32))  # as joblib's processes get it
    torch.testing.assert_close(found, net(parameters, rows(torch.float32)).detach())


def test_threads_may_share_a_net():
    net = ModuleNet(dropping, IN, OUT)
    members, x = [draw(net, 1) for _ in range(2)], rows(torch.float32, n_members=1)
    expected = [net(m, x).detach() for m in members]
    found = Parallel(n_jobs=2, prefer="threads")(
        delayed(net)(members[i % 2], x, training=i % 3 == 0) for i in range(60)
    )
    for i, output in enumerate(found):
        if i % 3:
            torch.testing.assert_close(output.detach(), expected[i % 2])


def test_widest_bounds_what_a_row_becomes():
    assert ModuleNet(lambda a, b: nn.Linear(a, b), 9, 2).widest == 9
    assert ModuleNet(lambda a, b: nn.Linear(a, b), 2, 9).widest == 9

    class Periodic(nn.Module):
        def __init__(self, in_features, out_features):
            super().__init__()
            self.frequency = nn.Parameter(torch.randn(in_features, 20))
            self.head = nn.Linear(20, out_features)

        def forward(self, x):
            return self.head(torch.sin(x[..., None] * self.frequency).mean(1))

    assert ModuleNet(Periodic, 4, 2).widest == 80


# ---------------------------------------------------------------------- in a population


def test_trains_in_a_population_whoever_is_beside():
    x = torch.randn(90, IN, generator=torch.Generator().manual_seed(0))
    table = TableTensors(x, (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0))
    net = ModuleNet(mlp, IN, OUT)
    order = np.arange(90)
    settings = [{}, {"lr": 0.1, "alpha": 0.5}, {"lr": 0.2}]  # what is left open comes from the curvature
    members = [
        Member(order[: 60 - 10 * i], order[60:], seed=i, **{"beta": 0.2} | chosen)
        for i, chosen in enumerate(settings)
    ]

    def train(some):
        training = Training(net, table, some, CrossEntropy(), batch_size=16, max_epochs=4)
        training.run()
        return training.results

    together = train(members)
    assert together[1].history["train_loss"][-1] < together[1].history["train_loss"][0]
    for member, result in zip(members, together, strict=True):
        (alone,) = train([member])
        torch.testing.assert_close(alone.lr, result.lr, rtol=1e-4, atol=0)
        torch.testing.assert_close(alone.weights, result.weights, rtol=1e-3, atol=1e-4)
