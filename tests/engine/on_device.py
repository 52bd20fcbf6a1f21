"""What must hold on an accelerator, tried on one that is none (tests/standin.py), in a process of its own.

``python -m tests.engine.on_device`` runs every check here and in tests/engine/asked_of_device.py and prints, as JSON, what each
of them failed by.
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
    Training,
    outputs,
    predicted,
)
from inna_tune.engine.stepping import Captured
from tests import standin
from tests.engine import asked_of_device
from tests.engine.asked_of_device import (
    N_ROWS,
    log_of_epoch,
    make_members,
    make_net,
    make_population,
    make_table,
)

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
        Method(averaging=0.9, longest_step=1e-3),
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
    loss, net = SquaredError(), make_net()
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


_KNOWN = globals() | vars(asked_of_device)
CHECKS = sorted(name for name in _KNOWN if name.startswith("check_"))


def main(names):
    """What each of the checks failed by; empty where it did not."""
    standin.begin()
    torch.set_num_threads(1)
    found = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _KNOWN[name]()
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1:] or CHECKS)) + "\n")
