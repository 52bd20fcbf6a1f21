"""What an epoch may ask of an accelerator: no wait, no upload and few launches; tests/engine/on_device.py runs it."""

from unittest import mock

import numpy as np
import torch

from inna_tune.engine import CrossEntropy, Jury, Member, Method, Population, SquaredError, Training
from inna_tune.nets import ModuleNet, TabularNet
from tests import standin
from tests.engine import tables

N_ROWS, N_NUMERIC, CATEGORIES = 170, 5, (4, 3)

# Of the net and settings that an estimator has by default, a step of members in company.
MOST_LAUNCHES = {"inna": 67, "innaprop": 75}


def make_net(kind="piecewise", *, hidden=(8, 6), **options):
    return TabularNet(
        N_NUMERIC + 2 + len(CATEGORIES),
        hidden,
        3,
        n_numeric=N_NUMERIC,
        categories=CATEGORIES,
        numeric_embedding=kind,
        n_frequencies=6,
        **{"activation": "mish"} | options,
    )


def make_table(device, **options):
    return tables.make_table(N_ROWS, N_NUMERIC + 2, categories=CATEGORIES, device=device, **options)


def make_members(n, **settings):
    order = np.random.default_rng(0).permutation(N_ROWS)
    return [
        Member(
            np.sort(order[: 120 + 3 * (i % 2)]),
            np.sort(order[130:]),
            10 + i,
            **{"dropout": 0.05, "lr": 0.1, "alpha": 0.5, "beta": 0.2} | settings,
        )
        for i in range(n)
    ]


def make_population(n, *, optimizer="inna", table=None, net=None, loss=None, method=None, **settings):
    method = {"averaging": 0.99} | (method or {})
    return Population(
        net or make_net(),
        make_table("standin", dtype=torch.float32) if table is None else table,
        make_members(n, **settings),
        loss or CrossEntropy(),
        batch_size=32,
        horizon=5,
        method=Method(optimizer, **method),
    )


def log_of_epoch(population, epoch=0):
    """Launches, reads and uploads of each step of an epoch; a wait for the device raises."""
    steps = []
    rates = population.learning_rates(epoch)
    with standin.watched() as log:
        steps_of = population._steps
        seen = [0]

        def within(*args):
            seen[0] = log.kernels.total()
            with standin.no_reads():
                return steps_of(*args)

        def after_step():
            if not steps:
                # Up to the first step the host may bring what an epoch needs.
                log.uploads.clear()
            steps.append(log.kernels.total() - seen[0])
            seen[0] = log.kernels.total()

        with mock.patch.object(population, "_steps", within):
            population.train_epoch(rates, after_step=after_step)
        assert log.uploads == [], f"the host brings something while an epoch goes on: {log.uploads}"
    assert len(steps) == 4
    return steps


# ---------------------------------------------------------------------- the stand-in itself


def check_the_stand_in_sees_what_it_is_to_see():
    device = standin.begin()
    x, y = torch.ones(3, device=device), torch.ones(3)
    for mixing in (
        lambda: x + y,
        lambda: torch.addcmul(y, x, x),
        lambda: y.mul_(x),
        lambda: x[torch.tensor([0])],
    ):
        try:
            mixing()
        except standin.MixedDevicesError:
            continue
        raise AssertionError("devices were mixed, and nobody saw it")
    x * torch.tensor(2.0)  # a number in a tensor may come from the CPU, on every device
    reads = (
        lambda: x.sum().item(),
        lambda: x.tolist(),
        lambda: bool((x > 0).all()),
        lambda: float(x[0]),
        lambda: x.cpu(),
        lambda: y.copy_(x),
        lambda: x[x > 0],
        lambda: x.unique(),
        lambda: x.nonzero(),
    )
    for read in reads:
        read()
        try:
            with standin.watched(may_read=False):
                read()
        except standin.HostReadError:
            continue
        raise AssertionError("the host has waited for the device, and nobody saw it")
    with standin.watched() as log:
        torch.relu(x.view(1, 3)[:, :2]) + 1
        torch._foreach_add([x, x], [x, x])
        torch._foreach_add([x, x], [torch.ones(1, device=device).expand(3)] * 2)
    assert log.kernels["relu"] == log.kernels["add"] == 1
    assert log.kernels["_foreach_add"] == 1 + 2
    assert log.kernels.total() - log.kernels["fill"] - log.kernels["ones"] == 5, log.kernels


# ---------------------------------------------------------------------- an epoch


def check_no_wait_and_no_upload_within_an_epoch():
    for optimizer in ("inna", "innaprop", "adamw", "sgd", "muon", torch.optim.NAdam):
        for n_members in (1, 4):
            options = {"weight_decay": 0.1, "label_smoothing": 0.1}
            population = make_population(n_members, optimizer=optimizer, **options)
            log_of_epoch(population)
            log_of_epoch(population, 1)


def check_no_wait_in_other_nets_types_and_losses():
    for settings in (
        {"net": make_net("none")},
        {"net": make_net("periodic", block="residual")},
        {"net": make_net("pbld", activation="relu")},
        {"net": make_net(activation="silu", hidden=(6,))},
        {"table": make_table("standin")},
        {"table": make_table("standin", weighted=True)},
        {"method": {"gradient_clip": 0.5}},
        {"method": {"longest_step": 1e-3}},
        {
            "table": make_table("standin", dtype=torch.float32, regression=True),
            "net": make_net(),
            "loss": SquaredError(),
        },
        {"net": ModuleNet(lambda a, b: torch.nn.Sequential(torch.nn.Linear(a, b), torch.nn.Tanh()), 9, 3)},
    ):  # fmt: skip
        log_of_epoch(make_population(3, **settings))


def check_a_step_is_few_launches_however_many_members():
    for optimizer, most in MOST_LAUNCHES.items():
        default = {"optimizer": optimizer, "method": {"scale_tensors": True, "longest_step": 0.1}}
        alone, few, many = (log_of_epoch(make_population(n, **default))[1:3] for n in (1, 2, 19))
        assert few == many, (few, many)
        # What several have to copy into one piece is one already where there is one.
        assert max(alone) <= max(few) <= most, (alone, few)


def check_members_leave_and_the_launches_stay():
    population = make_population(4)
    before = log_of_epoch(population)[1:3]
    population.keep([0, 2, 3])
    assert log_of_epoch(population, 1)[1:3] == before


def check_one_read_an_epoch_for_all_members():
    def measure(rows, told):
        assert {rows.device.type, told.device.type} == {"cpu"}, "what is measured is on the host"
        return float(told[:, 0].mean())

    for judges in ({}, {"jury": Jury()}, {"measure": measure}, {"jury": Jury(), "measure": measure}):
        members = make_members(3, patience=50, **judges)
        training = Training(
            make_net(), make_table("standin"), members, CrossEntropy(), batch_size=32, max_epochs=50, width=3
        )
        training.run(1)
        for _ in range(3):
            with standin.watched() as log:
                training.run(training.epoch + 1)
            assert len(log.reads) == 1, log.reads


def check_calibration_does_as_much_for_many_members():
    logs = []
    for n_members in (2, 9):
        table = make_table("standin")
        with standin.watched() as log:
            make_population(n_members, table=table, method={"scale_tensors": True}, lr=None)
        logs.append((len(log.reads), log.kernels["bmm"], log.kernels["mul"]))
    assert logs[0] == logs[1], logs
