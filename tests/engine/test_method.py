"""Optimizers, clipping, averaging and precision of a population, each against a plain loop or in other company."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inna_tune.engine import CrossEntropy, Member, Method, Population, TableTensors, Training
from inna_tune.engine.method import matrix_products
from inna_tune.nets import TabularNet
from inna_tune.optim import INNA, INNAprop
from tests.engine import tables

N_ROWS = 100


def make_table(dtype=torch.float64):
    return tables.make_table(N_ROWS, 5, dtype=dtype)


def make_members(n, **changes):
    """Of unequal numbers of rows, so that some have a batch more than others."""
    order = np.random.default_rng(0).permutation(N_ROWS)
    members = [
        Member(
            order[: 66 - 9 * i], order[70:], i, lr=0.01 * (i + 1), alpha=0.5, beta=0.1, weight_decay=0.01 * i
        )
        for i in range(n)
    ]
    return [replace(m, **changes) for m in members]


def train(members, method, *, epochs=6, dtype=torch.float64, **options):
    net = TabularNet(5, (8, 6), 3)
    training = Training(
        net,
        make_table(dtype),
        members,
        CrossEntropy(),
        batch_size=16,
        max_epochs=epochs,
        method=method,
        **options,
    )
    training.run()
    return training.results


class OwnMuon(torch.optim.Muon):
    """A subclass may step in another way, so that it isn't taken for what it is derived from."""


class NeedsMore(torch.optim.SGD):
    """Cannot be made from a step size alone."""

    def __init__(self, params, lr, rho):
        super().__init__(params, lr)


METHODS = {
    "inna": Method(),
    "inna, decoupled": Method(optimizer_params={"decoupled_weight_decay": True}),
    "innaprop": Method("innaprop"),
    "sgd": Method("sgd"),
    "sgd, Nesterov": Method("sgd", {"momentum": 0.8, "nesterov": True}),
    "adamw": Method("adamw"),
    "muon": Method("muon"),
    "RMSprop": Method(torch.optim.RMSprop),
    "Adafactor, which looks at shapes": Method(torch.optim.Adafactor),
    "clipped": Method(gradient_clip=0.3),
    "no step far": Method(longest_step=1e-3),
    "averaged": Method(averaging=0.9),
    "averaged AdamW, clipped": Method("adamw", gradient_clip=0.1, averaging=0.5),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_member_does_not_depend_on_its_company(method, width):
    members = make_members(4, patience=2)
    together = train(members, method, width=width, epochs=12)
    for member, result in zip(members, together, strict=True):
        (alone,) = train([member], method, epochs=12)
        torch.testing.assert_close(result.weights, alone.weights, rtol=1e-11, atol=1e-12)
        assert (result.epochs, result.best_epoch) == (alone.epochs, alone.best_epoch)


PLAIN = {
    "inna": (Method(), lambda p: INNA(p, 0.02, 0.5, 0.1, weight_decay=0.01)),
    "innaprop": (Method("innaprop"), lambda p: INNAprop(p, 0.02, 0.5, 0.1, weight_decay=0.01)),
    "sgd": (Method("sgd"), lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, weight_decay=0.01)),
    "sgd, Nesterov": (
        Method("sgd", {"momentum": 0.8, "nesterov": True}),
        lambda p: torch.optim.SGD(p, 0.02, momentum=0.8, nesterov=True, weight_decay=0.01),
    ),
    "adamw": (
        Method("adamw", {"betas": (0.8, 0.99)}),
        lambda p: torch.optim.AdamW(p, 0.02, betas=(0.8, 0.99), weight_decay=0.01),
    ),
    "Adagrad": (Method(torch.optim.Adagrad), lambda p: torch.optim.Adagrad(p, 0.02, weight_decay=0.01)),
    "Adafactor": (Method(torch.optim.Adafactor), lambda p: torch.optim.Adafactor(p, 0.02, weight_decay=0.01)),
}


@pytest.mark.parametrize(("method", "make"), PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize(("clip", "averaging"), [(None, None), (0.2, 0.9)])
@pytest.mark.parametrize("stacked", [False, True])
def test_one_member_is_a_plain_loop(method, make, clip, averaging, stacked):
    method = replace(method, gradient_clip=clip, averaging=averaging)
    member = replace(make_members(2)[1], validation_rows=np.arange(0), weight_decay=0.01, lr=0.02)
    table, net = make_table(), TabularNet(5, (8, 6), 3)
    (result,) = train([member], method, epochs=4, stacked=stacked)
    seeds = [int(s >> np.uint64(1)) for s in np.random.SeedSequence(1).generate_state(4, np.uint64)]
    start = net.initialize(torch.Generator().manual_seed(seeds[0]), dtype=torch.float64)
    weights = [torch.nn.Parameter(value.clone()) for value in start.values()]
    averages = [weight.detach().clone() for weight in weights]
    optimizer, stream = make(weights), torch.Generator().manual_seed(seeds[1])
    rows, k = torch.from_numpy(member.train_rows), 0
    for _ in range(4):
        for batch in rows[torch.randperm(len(rows), generator=stream)].split(16):
            stacked_weights = {n: w[None] for n, w in zip(start, weights, strict=True)}
            loss = torch.nn.functional.cross_entropy(
                net(stacked_weights, table.x[batch][None])[0], table.target[batch]
            )
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                length = torch.cat([w.grad.reshape(-1) for w in weights]).norm()
                for weight in weights:
                    weight.grad *= min(1.0, clip / length)
            optimizer.step()
            k += 1
            for average, weight in zip(averages, weights, strict=True):
                average.lerp_(weight.detach(), 1 - min(averaging or 0.0, (1 + k) / (10 + k)))
    own = averages if averaging is not None else [w.detach() for w in weights]
    torch.testing.assert_close(
        result.weights, torch.cat([w.reshape(-1) for w in own]), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize(
    ("kind", "lr"),
    [
        ("innaprop", 1e-3),
        ("adamw", 1e-3),
        ("muon", 3e-3),
        (torch.optim.Muon, 3e-3),
        (torch.optim.RMSprop, 0.01),
        (torch.optim.Adadelta, 1.0),
    ],
)
def test_what_is_left_open_is_the_optimizers_own_default(kind, lr):
    (result,) = train(make_members(1, lr=None, alpha=None, beta=None), Method(kind), epochs=1)
    assert result.lr == pytest.approx(lr)
    assert result.curvature is None
    if kind == "innaprop":
        assert (result.alpha, result.beta) == pytest.approx((0.1, 0.9))


def test_the_step_of_sgd_comes_from_the_curvature():
    (result,) = train(make_members(1, lr=None, alpha=None, beta=None), Method("sgd"), epochs=1)
    assert result.lr == pytest.approx(1.9 / result.curvature)


def test_products_in_bfloat16_are_near_and_the_weights_stay_float32():
    members = make_members(3, lr=0.05)
    exact, rough = (train(members, m, dtype=torch.float32) for m in (Method(), Method(precision="bf16")))
    for one, other in zip(exact, rough, strict=True):
        assert other.weights.dtype == torch.float32
        assert not torch.equal(one.weights, other.weights)
        assert other.best_loss == pytest.approx(one.best_loss, rel=0.03)


def test_the_setting_for_tf32_is_put_back():
    before = torch.backends.cuda.matmul.fp32_precision
    with matrix_products("tf32", torch.device("cuda")):
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert torch.backends.cuda.matmul.fp32_precision == before
    with matrix_products("tf32", torch.device("cpu")):
        assert torch.backends.cuda.matmul.fp32_precision == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "optimizer='adam': must be one of inna, innaprop, adamw"),
        ({"optimizer": torch.nn.Linear}, "must be one of"),
        ({"optimizer": torch.optim.LBFGS}, "several times a step"),
        (
            {"optimizer": torch.optim.SparseAdam},
            "optimizer=.*SparseAdam.*dense gradients.*choose one of inna",
        ),
        ({"optimizer": OwnMuon}, r"optimizer=.*OwnMuon.*only supports 2D.*choose one of inna.*muon"),
        ({"optimizer": NeedsMore}, r"optimizer=.*NeedsMore.*rho.*choose one of inna"),
        (
            {"optimizer": "sgd", "optimizer_params": {"momentum": "much"}},
            "optimizer='sgd' with optimizer_params=",
        ),
        ({"optimizer": "innaprop", "optimizer_params": {"sigma": 2.0}}, "innaprop.*sigma must be below 1"),
        ({"optimizer_params": {"momentum": 0.9}}, r"momentum is none of the options of optimizer='inna'"),
        ({"optimizer": torch.optim.Adam, "optimizer_params": {"sigma": 1}}, "sigma is none of the options"),
        ({"gradient_clip": 0.0}, "gradient_clip=0.0: must be a positive number"),
        ({"longest_step": -0.1}, "longest_step=-0.1: must be a positive number"),
        ({"averaging": 1.0}, r"averaging=1.0: must lie in \[0, 1\)"),
        ({"precision": "fp8"}, "precision='fp8': must be one of float32, tf32, bf16"),
    ],
)
def test_methods_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Method(**options)


def test_a_clipped_gradient_that_is_not_finite_is_seen():
    table = make_table()
    table.x[0, 0] = float("nan")
    members = make_members(2, patience=None)
    members[1] = replace(members[1], train_rows=np.arange(1, 60), validation_rows=np.arange(60, 90))
    members[0] = replace(members[0], train_rows=np.arange(0, 60), validation_rows=np.arange(60, 90))
    training = Training(
        TabularNet(5, (4,), 3), table, members, CrossEntropy(), batch_size=16, max_epochs=3, width=2,
        method=Method(gradient_clip=1.0),
    )  # fmt: skip
    training.run()
    assert [r.stop_reason for r in training.results] == ["diverged", "max_epochs"]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "method",
    [
        Method(),
        Method(averaging=0.9, gradient_clip=0.5),
        Method(averaging=0.9, longest_step=1e-3),
        Method("innaprop"),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_captured_step_is_the_step(method, dropout, monkeypatch):
    table = make_table()
    table = TableTensors(table.x.cuda(), table.target.cuda())
    members = make_members(4, dropout=dropout)
    net = TabularNet(5, (8, 6), 3)

    def run():
        population = Population(
            net, table, members, CrossEntropy(), batch_size=16, horizon=5, method=method, stacked=True
        )
        for epoch in range(3):
            population.train_epoch(population.learning_rates(epoch))
        return population

    captured = run()
    assert captured._captured is not None
    monkeypatch.setattr("inna_tune.engine.population.Captured.is_possible", lambda *_: False)
    plain = run()
    assert plain._captured is None
    torch.testing.assert_close(captured.flat, plain.flat, rtol=1e-9, atol=1e-11)


@pytest.mark.gpu
def test_the_device_trains_as_the_host_does():
    members = make_members(3)
    net, table = TabularNet(5, (8, 6), 3), make_table()
    found = []
    for device in ("cpu", "cuda"):
        there = TableTensors(table.x.to(device), table.target.to(device))
        training = Training(net, there, members, CrossEntropy(), batch_size=16, max_epochs=5)
        training.run()
        found.append([r.weights.cpu() for r in training.results])
    for on_host, on_device in zip(*found, strict=True):
        torch.testing.assert_close(on_device, on_host, rtol=1e-8, atol=1e-10)
