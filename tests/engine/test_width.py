"""How members are stacked changes nothing but the time and the memory."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from inna_tune.engine import CrossEntropy, Member, Population, Training, width
from inna_tune.engine.calibrating import Calibrator
from inna_tune.engine.method import Method
from inna_tune.engine.stack import Stack
from inna_tune.engine.threads import torch_threads
from inna_tune.nets import TabularNet
from tests.engine import tables

N_ROWS = 300


def make_table(dtype=torch.float32):
    return tables.make_table(N_ROWS, 6, dtype=dtype)


def make_members(n):
    order = np.random.default_rng(0).permutation(N_ROWS)
    return [
        Member(
            order[i : 200 + i], order[220:], i, lr=0.02 * (i + 1), alpha=0.5, beta=0.1, dropout=0.1 * (i % 2)
        )
        for i in range(n)
    ]


def train(members, *, patience=None, **options):
    net = TabularNet(6, (16, 16), 3)
    members = [replace(m, patience=patience) for m in members]
    training = Training(net, make_table(), members, CrossEntropy(), batch_size=32, max_epochs=12, **options)
    training.run()
    return training.results


def assert_same(results, expected):
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result.weights, other.weights)
        assert {k: v for k, v in result.history.items() if k != "seconds"} == {
            k: v for k, v in other.history.items() if k != "seconds"
        }
        assert (result.best_epoch, result.epochs, result.stop_reason) == (
            other.best_epoch,
            other.epochs,
            other.stop_reason,
        )


@pytest.mark.parametrize("stack", [1, 2, 3, None])
def test_the_width_changes_no_bit(stack):
    members = make_members(7)
    assert_same(train(members, width=stack, patience=3), train(members, width=7, patience=3))


def test_a_single_member_can_be_trained_as_in_company_to_the_last_bit():
    members = make_members(4)
    together = train(members, patience=3)
    for member, result in zip(members, together, strict=True):
        assert_same(train([member], patience=3, stacked=True), [result])


def failed_capture(behind):
    """What is raised where a CUDA graph could not be captured because of something else."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = behind
    return error


def failing_above(limit, monkeypatch, *, error, from_epoch=0):
    """Make every stack of more than ``limit`` members run out of memory, as torch would say it."""
    widths = []
    run = Stack.run

    def failing(self, until_epoch=None, **kwargs):
        widths.append(len(self.active))
        if len(self.active) > limit and until_epoch > from_epoch:
            raise error
        run(self, until_epoch, **kwargs)

    monkeypatch.setattr(Stack, "run", failing)
    return widths


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        failed_capture(torch.OutOfMemoryError("CUDA out of memory")),
    ],
    ids=["device", "host", "python", "cuda", "library", "graph"],
)
@pytest.mark.parametrize("from_epoch", [0, 4])
def test_where_memory_runs_out_half_as_many_train_at_a_time(error, from_epoch, monkeypatch, caplog):
    members = make_members(7)
    expected = train(members, patience=3)
    widths = failing_above(2, monkeypatch, error=error, from_epoch=from_epoch)
    assert_same(train(members, width=7, patience=3), expected)
    assert max(widths) > 2
    assert "going on with half as many" in caplog.text


def test_a_member_that_does_not_fit_alone_says_so(monkeypatch):
    failing_above(0, monkeypatch, error=torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError) as raised:
        train(make_members(4), width=4)
    (note,) = raised.value.__notes__
    assert "smaller batch_size" in note


def test_memory_that_runs_out_within_an_epoch_loses_nothing(monkeypatch, caplog):
    """Steps that were made before it did count for nothing: the halves begin again from their seeds."""
    members = make_members(5)
    expected = train(members, patience=3)
    step, steps = Population._step, []

    def failing(self, batch, rate):
        steps.append(len(self))
        if len(self) > 2 and steps.count(len(self)) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, batch, rate)

    monkeypatch.setattr(Population, "_step", failing)
    assert_same(train(members, width=5, patience=3), expected)
    assert {5, 3} < set(steps)
    assert caplog.text.count("going on with half as many") == 2


def test_other_errors_pass(monkeypatch):
    wrong = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    for error in (wrong, failed_capture(wrong)):
        with monkeypatch.context() as patch:
            failing_above(2, patch, error=error)
            with pytest.raises(RuntimeError, match="mat1|capture"):
                train(make_members(4), width=4)


def choose(seconds, n, monkeypatch, *, alone=None):
    """The layout for n members where a step takes seconds[w] a member, or alone[w] with one thread."""

    def timed(net, table, members, *rest):
        return (alone if torch.get_num_threads() == 1 and alone else seconds)[len(members)]

    monkeypatch.setattr(width, "_measured", {})
    monkeypatch.setattr(width, "_SMALL", 0)
    monkeypatch.setattr(width, "_seconds_a_member", timed)
    net = TabularNet(6, (16, 16), 3)
    return width.quickest_layout(net, make_table(), make_members(n), CrossEntropy(), batch_size=32)


def test_the_width_is_the_quickest(monkeypatch):
    falling = {1: 8.0, 2: 4.0, 3: 3.0, 4: 2.0, 8: 1.5, 9: 1.52, 12: 1.7, 16: 1.8, 32: 0.1}
    assert choose(falling, 3, monkeypatch).width == 3
    assert choose(falling, 8, monkeypatch).width == 8
    assert choose(falling, 9, monkeypatch).width == 9, "of widths that are level the widest"
    assert choose(falling, 12, monkeypatch).width == 6, "two stacks of six, not of eight and four"
    assert choose(falling, 32, monkeypatch).width == 8, (
        "what lies beyond a width that is much slower is not tried"
    )
    assert choose({1: 1.0, 2: 1.2, 4: 0.1}, 20, monkeypatch).width == 1


def test_the_threads_are_the_quickest_and_put_back(monkeypatch):
    with torch_threads(3):
        level = {1: 1.0, 2: 1.0, 4: 1.0}
        assert choose(level, 4, monkeypatch, alone={1: 0.5, 2: 0.4, 4: 0.3}) == (4, 1)
        assert choose(level, 4, monkeypatch, alone={1: 2.0, 2: 2.0, 4: 2.0}) == (4, 3)
        assert choose({1: 1.0}, 1, monkeypatch, alone={1: 0.5}) == (1, 1)
        assert torch.get_num_threads() == 3
        with pytest.raises(KeyError):
            choose({}, 4, monkeypatch, alone=level)
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("threads", "hidden", "timed"), [(1, 16, []), (3, 16, [8, 8]), (1, 2100, [1, 2, 4, 8])]
)
def test_small_members_are_all_stacked_and_only_threads_are_timed(threads, hidden, timed, monkeypatch):
    monkeypatch.setattr(width, "_measured", {})
    seen = []

    def seconds(net, table, members, *rest):
        seen.append(len(members))
        return 1.0 / len(members)

    monkeypatch.setattr(width, "_seconds_a_member", seconds)
    net = TabularNet(6, (hidden,), 3)
    with torch_threads(threads):
        found = width.quickest_layout(net, make_table(), make_members(8), CrossEntropy(), batch_size=32)
        assert found.width == 8
        assert seen == timed
        monkeypatch.setattr(width, "width_for_memory", lambda *given, **options: 5)
        found = width.quickest_layout(net, make_table(), make_members(8), CrossEntropy(), batch_size=32)
        assert found.width == 4, "two stacks of four, not of five and three"


def test_the_number_of_threads_changes_no_bit():
    members = make_members(4)
    with torch_threads(1):
        expected = train(members, width=4)
    with torch_threads(2):
        assert_same(train(members, width=4), expected)


def test_steps_are_timed_without_measuring_factors(monkeypatch):
    monkeypatch.setattr(width, "_measured", {})
    monkeypatch.setattr(width, "_SMALL", 0)
    # All in one stack, whatever the times.
    monkeypatch.setattr(width, "_LEVEL", float("inf"))
    monkeypatch.setattr(width, "_HOPELESS", float("inf"))
    measured, factors = [], Calibrator.factors
    monkeypatch.setattr(Calibrator, "factors", lambda self: measured.append(self) or factors(self))
    train(make_members(4), method=Method(scale_tensors=True), width=None)
    assert len(width._measured) >= 1
    assert len(measured) == 1, "once, by those who train"


@pytest.mark.parametrize(("hidden", "used"), [((16, 16), {1}), ((1100,), {3})])
def test_thin_layers_are_measured_by_one_thread(hidden, used, monkeypatch):
    seen, loss_of = set(), Calibrator._loss_of

    def noting(self, leaves):
        seen.add(torch.get_num_threads())
        return loss_of(self, leaves)

    monkeypatch.setattr(Calibrator, "_loss_of", noting)
    member = replace(make_members(1)[0], lr=None)
    with torch_threads(3):
        Population(
            TabularNet(6, hidden, 3),
            make_table(),
            [member],
            CrossEntropy(),
            batch_size=32,
            horizon=1,
            method=Method(scale_tensors=True),
        )
        assert torch.get_num_threads() == 3
    assert seen == used


def test_the_width_is_bounded_by_memory(monkeypatch):
    net, table = TabularNet(6, (16, 16), 3), make_table()
    monkeypatch.setattr(width, "free_bytes", lambda device: 1e6)
    few = width.width_for_memory(net, table, batch_size=32)
    assert 1 <= few < 64
    assert few * sum(np.prod(s) for s in net.parameter_shapes.values()) * 4 < 0.25 * 1e6
    monkeypatch.setattr(width, "free_bytes", lambda device: 1.0)
    assert width.width_for_memory(net, table, batch_size=32) == 1
    assert choose({1: 8.0, 2: 4.0, 4: 2.0, 8: 1.0}, 8, monkeypatch).width == 1


def test_timing_leaves_everything_as_it_was():
    net, table, members = TabularNet(6, (16, 16), 3), make_table(), make_members(3)
    before = torch.get_rng_state()
    width._seconds_a_member(net, table, members, CrossEntropy(), 32)
    assert torch.equal(torch.get_rng_state(), before)
    population = Population(net, table, members, CrossEntropy(), batch_size=32, horizon=1)
    assert population.settings["lr"].flatten().tolist() == pytest.approx([m.lr for m in members])


def test_widths_that_make_no_sense():
    with pytest.raises(ValueError, match=r"width=0 must be at least 1"):
        train(make_members(2), width=0)


class Ticking:
    """Goes on by a tick whenever it is looked at."""

    def __init__(self, tick):
        self.tick, self.time = tick, 0.0

    def now(self):
        self.time += self.tick
        return self.time


@pytest.mark.parametrize(("deadline", "timed"), [(None, [1, 2, 4, 8]), (1e6, [1, 2, 4, 8]), (20.0, [1])])
def test_no_further_layout_is_timed_where_that_takes_a_share_of_the_time(deadline, timed, monkeypatch):
    monkeypatch.setattr(width.clock, "now", Ticking(2.5).now)
    monkeypatch.setattr(width, "_measured", {})
    monkeypatch.setattr(width, "_SMALL", 0)
    seen = []

    def seconds(net, table, members, *rest):
        seen.append(len(members))
        return 1.0 / len(members)

    monkeypatch.setattr(width, "_seconds_a_member", seconds)
    with torch_threads(1):
        width.quickest_layout(
            TabularNet(6, (4,), 3),
            make_table(),
            make_members(8),
            CrossEntropy(),
            batch_size=32,
            deadline=deadline,
        )
    assert seen == timed


@pytest.mark.parametrize(("hidden", "first"), [((4,), 1), ((1100,), 3)])
def test_thin_nets_are_timed_by_one_thread_first_where_time_is_short(hidden, first, monkeypatch):
    monkeypatch.setattr(width.clock, "now", Ticking(2.5).now)
    monkeypatch.setattr(width, "_measured", {})
    monkeypatch.setattr(width, "_seconds_a_member", lambda *given: 1.0)
    with torch_threads(3):
        found = width.quickest_layout(
            TabularNet(6, hidden, 3),
            make_table(),
            make_members(8),
            CrossEntropy(),
            batch_size=32,
            deadline=20.0,
        )
    assert found.threads == first, "no other is timed"


@pytest.mark.parametrize("n_steps", [1, 4])
def test_one_step_is_timed_where_the_time_is_up(n_steps, monkeypatch):
    steps, step = [], Population._step
    monkeypatch.setattr(Population, "_step", lambda *given: steps.append(given) or step(*given))
    given = (TabularNet(6, (4,), 3), make_table(), make_members(1), CrossEntropy(), 32, None)
    width._seconds_a_member(*given, float("-inf" if n_steps == 1 else "inf"))
    assert len(steps) == n_steps


def products_until(deadline, tick, monkeypatch):
    """Products of the Hessian by which a member is measured where the clock goes on with each look."""
    backward, seen = torch.autograd.grad, []

    def noting(*given, **options):
        if options.get("retain_graph"):
            seen.append(given)
        return backward(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(width.clock, "now", Ticking(tick).now)
        patch.setattr(torch.autograd, "grad", noting)
        member = replace(make_members(1)[0], lr=None, alpha=None, beta=None)
        population = Population(
            TabularNet(6, (4,), 3),
            make_table(),
            [member],
            CrossEntropy(),
            batch_size=32,
            horizon=3,
            deadline=deadline,
        )
    return len(seen), population.settings_of(0)


def test_a_deadline_ends_the_measuring_of_curvature(monkeypatch):
    whole, settings = products_until(None, 1.0, monkeypatch)
    assert whole == 15
    assert products_until(1e6, 1.0, monkeypatch) == (whole, settings)
    few, cut = products_until(20.0, 1.0, monkeypatch)
    assert few < whole
    assert cut["curvature"] >= 0.99 * settings["curvature"], "from above, so that steps are no longer"


def test_the_limit_of_a_container_counts(tmp_path):
    assert width._left_to_the_group(tmp_path) == math.inf
    for name, text in {"max": "max\n", "current": "3000\n", "stat": "anon 7\ninactive_file 1000\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert width._left_to_the_group(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("10000\n")
    assert width._left_to_the_group(tmp_path) == 8000
    (tmp_path / "memory.max").write_text("1000\n")
    assert width._left_to_the_group(tmp_path) == 0
    assert width.free_bytes(torch.device("cpu")) > 0
