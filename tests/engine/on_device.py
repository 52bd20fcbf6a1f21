"""What must hold on an accelerator, tried on one that is none (tests/standin.py), in a process of its own.

``python -m tests.engine.on_device`` runs every check here and prints, as JSON, what each of them failed by.
"""

import copy
import json
import sys
import traceback
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest import mock

import numpy as np
import torch

from inna_tune import InnaClassifier, InnaRegressor, InnaSearchCV
from inna_tune.engine import (
    CrossEntropy,
    Jury,
    Member,
    Method,
    Population,
    SquaredError,
    TableTensors,
    Training,
    outputs,
    predicted,
)
from inna_tune.engine.stepping import Captured
from inna_tune.nets import ModuleNet, TabularNet
from tests import standin

N_ROWS, N_NUMERIC, CATEGORIES = 170, 5, (4, 3)

# Of the net and settings that an estimator has by default, a step of members in company.
MOST_LAUNCHES = {"inna": 60, "innaprop": 75}


def make_net(kind="piecewise", *, classes=3, hidden=(8, 6), **options):
    return TabularNet(
        N_NUMERIC + 2 + len(CATEGORIES),
        hidden,
        classes,
        n_numeric=N_NUMERIC,
        categories=CATEGORIES,
        numeric_embedding=kind,
        n_frequencies=6,
        **{"activation": "mish"} | options,
    )


def make_table(device, *, dtype=torch.float64, weighted=False, regression=False):
    stream = torch.Generator().manual_seed(3)
    numbers = torch.randn(N_ROWS, N_NUMERIC, generator=stream, dtype=torch.float64)
    others = torch.randint(2, (N_ROWS, 2), generator=stream)
    codes = [torch.randint(n, (N_ROWS, 1), generator=stream) for n in CATEGORIES]
    x = torch.cat([numbers, others, *codes], 1).to(dtype)
    score = numbers[:, 0] + others[:, 0] - 0.5 * codes[0][:, 0]
    target = (
        score[:, None].to(dtype) if regression else torch.bucketize(score, torch.tensor([-0.5, 0.5]).double())
    )
    weight = torch.rand(N_ROWS, generator=stream, dtype=torch.float64).to(dtype) + 0.5 if weighted else None
    return TableTensors(*(None if t is None else t.to(device) for t in (x, target, weight)))


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
        {
            "table": make_table("standin", dtype=torch.float32, regression=True),
            "net": make_net(classes=1),
            "loss": SquaredError(),
        },
        {"net": ModuleNet(lambda a, b: torch.nn.Sequential(torch.nn.Linear(a, b), torch.nn.Tanh()), 9, 3)},
    ):  # fmt: skip
        log_of_epoch(make_population(3, **settings))


def check_a_step_is_few_launches_however_many_members():
    for optimizer, most in MOST_LAUNCHES.items():
        default = {"optimizer": optimizer, "method": {"scale_tensors": True}}
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


# ---------------------------------------------------------------------- the same results as on the CPU


def run_on(device, members, *, net=None, loss=None, table=None, until=None, **options):
    training = Training(
        net or make_net(),
        table or make_table(device),
        members,
        loss or CrossEntropy(),
        batch_size=32,
        max_epochs=4,
        width=len(members),
        keep_states=True,
        **options,
    )
    training.run(until)
    return training


def assert_alike(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.weights.cpu(), theirs.weights, rtol=1e-6, atol=1e-8)
        assert (ours.best_epoch, ours.stop_reason) == (theirs.best_epoch, theirs.stop_reason)
        for name in ("train_loss", "validation_loss", "lr"):
            np.testing.assert_allclose(ours.history[name], theirs.history[name], rtol=1e-7)


def check_it_trains_as_the_cpu_does():
    for method in (
        Method(scale_tensors=True, averaging=0.9),
        Method("innaprop", gradient_clip=0.5),
        Method("adamw"),
        Method("sgd", averaging=0.9),
        Method("muon"),
        Method(torch.optim.NAdam),
    ):
        members = make_members(4, dropout=0.0, weight_decay=0.01)
        members[1] = replace(members[1], patience=1, lr=0.9, alpha=0.1)
        members[2] = replace(members[2], lr=None, alpha=None, beta=None)
        table = {"weighted": True}
        found, expected = (
            run_on(where, members, method=method, table=make_table(where, **table)).results
            for where in ("standin", "cpu")
        )
        assert_alike(found, expected)


def check_it_trains_regressions_and_juries_as_the_cpu_does():
    order, jury = np.random.default_rng(0).permutation(N_ROWS), Jury()
    members = [
        Member(np.setdiff1d(order, part), part, seed, jury=jury, patience=2)
        for seed, part in enumerate(np.array_split(order, 4)[:3])
    ]
    loss, net = SquaredError(), make_net(classes=1)
    found, expected = (
        run_on(where, members, loss=loss, net=net, table=make_table(where, regression=True)).results
        for where in ("standin", "cpu")
    )
    assert_alike(found, expected)
    assert len({r.best_epoch for r in found}) == 1


def check_it_goes_on_with_what_another_device_has_begun():
    for method in (Method(averaging=0.9, scale_tensors=True), Method("innaprop"), Method("adamw")):
        members = make_members(3, dropout=0.0)
        whole = run_on("cpu", members, method=method).results
        for first, second in (("cpu", "standin"), ("standin", "cpu")):
            begun = run_on(first, members, method=method, until=2)
            progress = [begun.progress(i) for i in range(3)]
            progress = [replace(p, state=copy.copy(p.state)) for p in progress]
            assert_alike(run_on(second, members, method=method, progress=progress).results, whole)


# ---------------------------------------------------------------------- dropout


def check_masks_are_the_same_in_any_company():
    for dtype in (torch.float32, torch.float64):
        table = make_table("standin", dtype=dtype)
        members = [
            replace(m, dropout=rate) for m, rate in zip(make_members(4), (0.5, 0.0, 0.1, 0.3), strict=True)
        ]
        together = run_on("standin", members, table=table).results
        tolerance = {"rtol": 1e-6, "atol": 1e-8} if dtype == torch.float64 else {"rtol": 1e-2, "atol": 1e-3}
        for i in (0, 2):
            (alone,) = run_on("standin", [members[i]], table=table).results
            torch.testing.assert_close(alone.weights.cpu(), together[i].weights.cpu(), **tolerance)
        dropless = run_on("standin", [replace(members[0], dropout=0.0)], table=table).results[0]
        assert not torch.allclose(dropless.weights.cpu(), together[0].weights.cpu(), rtol=1e-2, atol=1e-3)


def check_masks_go_on_after_a_break():
    members = make_members(3, dropout=0.3)
    whole = run_on("standin", members).results
    begun = run_on("standin", members, until=2)
    progress = [begun.progress(i) for i in range(3)]
    for ours, theirs in zip(run_on("standin", members, progress=progress).results, whole, strict=True):
        torch.testing.assert_close(ours.weights.cpu(), theirs.weights.cpu(), rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------------- graphs


class _Stream:
    def wait_stream(self, other):
        pass


@contextmanager
def graphs():
    """Steps captured as on CUDA, by graphs that do again what was done."""
    made = []

    def new_graph():
        made.append(standin.Graph())
        return made[-1]

    def possible(stepping, device):
        return stepping.stacked and stepping.is_capturable

    with (
        mock.patch.multiple(
            torch.cuda,
            Stream=_Stream,
            current_stream=_Stream,
            stream=lambda _: nullcontext(),
            CUDAGraph=new_graph,
            graph=standin.capture,
        ),
        mock.patch.object(Captured, "is_possible", staticmethod(possible)),
    ):
        yield made


def check_a_replayed_step_is_the_step():
    for optimizer in ("inna", "innaprop"):
        for settings in ({"dropout": 0.3}, {"dropout": 0.0, "label_smoothing": 0.1, "weight_decay": 0.1}):
            for net in (make_net(), make_net("periodic", block="residual")):
                found = []
                for capturing in (graphs(), nullcontext([])):
                    with capturing as made:
                        population = make_population(
                            3, optimizer=optimizer, net=net, table=make_table("standin"), **settings
                        )
                        for epoch in range(2):
                            population.train_epoch(population.learning_rates(epoch))
                        population.keep([0, 2])
                        population.train_epoch(population.learning_rates(2))
                        found.append(population.flat.cpu())
                    assert [graph.replays for graph in made] == ([8, 4] if made else [])
                torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


def check_a_replayed_step_is_few_launches():
    with graphs():
        population = make_population(4)
        population.train_epoch(population.learning_rates(0))
        steps = log_of_epoch(population, 1)[1:3]
    # Batch, mask and step size are copied to their places, and the losses from theirs.
    assert max(steps) <= 6, steps


# ---------------------------------------------------------------------- from a table to its predictions


def frame(n_rows=200):
    import pandas as pd

    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {"a": rng.normal(size=n_rows), "b": rng.normal(size=n_rows), "c": rng.choice(list("pqrs"), n_rows)}
    )
    return X, np.where(X["a"] + (X["c"] == "p") > 0.3, "yes", "no"), X["a"].to_numpy() ** 2


SETTINGS = {
    "hidden_layer_sizes": (8, 6),
    "max_epochs": 3,
    "random_state": 0,
    "dropout": 0.0,
    "batch_size": 32,
}


@contextmanager
def every_epoch_unread():
    """Within, no epoch of any population may wait for the device."""
    steps = Population._steps

    def unread(self, *args):
        with standin.no_reads():
            return steps(self, *args)

    with mock.patch.object(Population, "_steps", unread):
        yield


def check_from_the_table_to_what_is_predicted():
    X, classes, numbers = frame()
    for n_members in (1, "auto"):
        with every_epoch_unread():
            found = InnaClassifier(device="standin", n_members=n_members, **SETTINGS).fit(X, classes)
            values = InnaRegressor(device="standin", n_members=n_members, **SETTINGS).fit(X, numbers)
        expected = InnaClassifier(device="cpu", n_members=n_members, **SETTINGS).fit(X, classes)
        np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-4)
    with every_epoch_unread():
        found.partial_fit(X, classes)
        values = InnaRegressor(device="standin", n_members=2, **SETTINGS).fit(X, numbers)
    assert np.isfinite(values.predict(X)).all()


def check_a_search_from_beginning_to_end():
    X, classes, _ = frame(200)
    with every_epoch_unread():
        search = InnaSearchCV(
            InnaClassifier(device="standin", **SETTINGS | {"dropout": 0.1}), n_trials=2, cv=2, random_state=0
        ).fit(X, classes)
    assert np.isfinite(search.best_score_)
    assert search.predict(X).shape == (200,)


def check_outputs_of_a_table_are_those_of_the_cpu():
    net, members = make_net(), make_members(3)
    weights = run_on("cpu", members).results
    flat, x = torch.stack([r.weights for r in weights]), make_table("cpu").x
    there = (flat.to("standin"), x.to("standin"))
    torch.testing.assert_close(outputs(net, *there).cpu(), outputs(net, flat, x), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(predicted(net, *there).cpu(), predicted(net, flat, x), rtol=1e-6, atol=1e-7)


def check_out_of_memory_within_an_epoch_loses_nothing():
    members = make_members(4, dropout=0.2)
    expected = run_on("standin", members).results
    step = Population._step
    asked = []

    def failing(self, batch, rate):
        asked.append(len(self))
        if len(self) > 1 and len(asked) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, batch, rate)

    with mock.patch.object(Population, "_step", failing):
        found = run_on("standin", members).results
    assert set(asked) == {4, 2, 1}
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.weights.cpu(), theirs.weights.cpu(), rtol=1e-6, atol=1e-8)
        assert ours.history["epoch"] == theirs.history["epoch"]


CHECKS = sorted(name for name in globals() if name.startswith("check_"))


def main(names):
    """What each of the checks failed by; empty where it did not."""
    standin.begin()
    torch.set_num_threads(1)
    found = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                globals()[name]()
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1:] or CHECKS)) + "\n")
