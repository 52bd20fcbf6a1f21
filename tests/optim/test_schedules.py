import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ChainedScheduler, ExponentialLR, LambdaLR, LinearLR, SequentialLR

from inna_tune.optim.decay import DECAY_LAWS, decay_factor, describe_decay
from inna_tune.optim.schedules import LogDecay, PowerDecay

epochs = st.floats(0, 1e4)
powers = st.floats(0.01, 4)
SCHEDULERS = [(PowerDecay, "power"), (LogDecay, "log")]


def make_optimizer(lr=1.0, n_groups=1):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr * (index + 1)} for index in range(n_groups)
    ]
    return torch.optim.SGD(groups)


def step_sizes(optimizer, scheduler, n_steps):
    sizes = [float(optimizer.param_groups[0]["lr"])]
    for _ in range(n_steps):
        optimizer.step()
        scheduler.step()
        sizes.append(float(optimizer.param_groups[0]["lr"]))
    return sizes


@settings(deadline=None)
@given(epochs, powers)
def test_formulas(epoch, power):
    assert decay_factor("constant", epoch) == 1.0
    assert decay_factor("power", epoch, power=power) == pytest.approx((1 + epoch) ** -power)
    assert decay_factor("log", epoch, power=power) == pytest.approx((1 + math.log(1 + epoch)) ** -power)
    assert decay_factor("cosine", epoch, horizon=1e4) == pytest.approx(
        0.5 + 0.5 * math.cos(math.pi * epoch / 1e4)
    )


@pytest.mark.parametrize("law", DECAY_LAWS)
@settings(deadline=None)
@given(earlier=epochs, later=epochs)
def test_starts_at_one_and_never_grows(law, earlier, later):
    earlier, later = sorted([earlier, later])
    assert decay_factor(law, 0.0, horizon=5e3) == 1.0
    assert 1.0 >= decay_factor(law, earlier, horizon=5e3) >= decay_factor(law, later, horizon=5e3) >= 0.0


@pytest.mark.parametrize("law", DECAY_LAWS)
def test_tensors_broadcast_and_agree_with_floats(law):
    epoch = torch.tensor([0.0, 0.5, 3.0, 40.0], dtype=torch.float64)
    power = torch.tensor([0.25, 1.5], dtype=torch.float64)[:, None]
    factors = decay_factor(law, epoch, power=power, horizon=20.0).broadcast_to(2, 4)
    expected = [[decay_factor(law, k, power=q, horizon=20.0) for k in epoch.tolist()] for q in (0.25, 1.5)]
    torch.testing.assert_close(factors, torch.tensor(expected, dtype=torch.float64))


def test_a_member_power_with_a_float_epoch():
    factors = decay_factor("log", 3.0, power=torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(factors, (1 + math.log(4.0)) ** -torch.tensor([0.5, 2.0]))


@pytest.mark.parametrize("law", DECAY_LAWS)
def test_only_laws_that_say_so_look_at_the_horizon(law):
    found = [decay_factor(law, 3.0, horizon=horizon) for horizon in (4.0, 40.0)]
    assert (found[0] != found[1]) == DECAY_LAWS[law].needs_horizon
    if DECAY_LAWS[law].needs_horizon:
        with pytest.raises(ValueError, match=f"the {law} law needs horizon"):
            decay_factor(law, 3.0)
    else:
        assert decay_factor(law, 3.0) == found[0]


@pytest.mark.parametrize("law", DECAY_LAWS)
def test_only_laws_with_a_usual_power_look_at_it(law):
    usual = DECAY_LAWS[law].power
    found = [decay_factor(law, 3.0, power=power, horizon=20.0) for power in (0.3, 3.0)]
    assert (found[0] != found[1]) == (usual is not None)
    assert decay_factor(law, 3.0, power=usual, horizon=20.0) == decay_factor(law, 3.0, horizon=20.0)
    assert ("exponent 0.3" in describe_decay(law, 0.3)) == (usual is not None)


@pytest.mark.parametrize("law", DECAY_LAWS)
def test_every_law_with_a_power_has_a_scheduler_and_words(law):
    assert (law in [known for _, known in SCHEDULERS]) == (DECAY_LAWS[law].power is not None)
    assert describe_decay(law).startswith("the step ")


def test_a_law_that_is_not_known_is_told_by_its_name():
    assert describe_decay("staircase", 2.0) == "the step falls by the staircase law"


def test_cosine_is_zero_from_the_horizon_on():
    assert decay_factor("cosine", 10.0, horizon=10.0) == 0.0
    assert decay_factor("cosine", 11.0, horizon=10.0) == 0.0


def test_log_law_vanishes_faster_than_one_over_log():
    products = [math.log(10.0**n) * decay_factor("log", 10.0**n) for n in (2, 20, 200)]
    assert products == sorted(products, reverse=True)
    assert products[-1] < 0.1


@pytest.mark.parametrize(
    ("law", "epoch", "options", "named"),
    [
        ("exponential", 1.0, {}, "law='exponential'"),
        ("power", -1.0, {}, "epoch=-1.0"),
        ("power", math.nan, {}, "epoch=nan"),
        ("log", 1.0, {"power": -0.5}, "power=-0.5"),
        ("cosine", 1.0, {}, "needs horizon"),
        ("cosine", 1.0, {"horizon": 0.0}, "horizon=0.0"),
    ],
)
def test_bad_arguments_are_named(law, epoch, options, named):
    with pytest.raises(ValueError, match=named):
        decay_factor(law, epoch, **options)


@pytest.mark.parametrize(("scheduler_class", "law"), SCHEDULERS)
@pytest.mark.parametrize("power", [None, 0.125, 2.0])
def test_scheduler_follows_its_law_on_every_data_size(scheduler_class, law, power):
    for steps_per_epoch in (1, 7):
        optimizer = make_optimizer(0.3)
        sizes = step_sizes(
            optimizer, scheduler_class(optimizer, power, steps_per_epoch=steps_per_epoch), 5 * steps_per_epoch
        )
        expected = [
            0.3 * decay_factor(law, step / steps_per_epoch, power=power) for step in range(len(sizes))
        ]
        assert sizes == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("scheduler_class", "law"), SCHEDULERS)
def test_scheduler_keeps_the_ratio_of_groups(scheduler_class, law):
    optimizer = make_optimizer(n_groups=3)
    scheduler = scheduler_class(optimizer)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([n * decay_factor(law, 1.0) for n in (1, 2, 3)])


@pytest.mark.parametrize(("scheduler_class", "law"), SCHEDULERS)
def test_scheduler_starts_over_after_a_warm_up(scheduler_class, law):
    optimizer = make_optimizer()
    warm_up = LinearLR(optimizer, start_factor=0.25, total_iters=3)
    scheduler = SequentialLR(optimizer, [warm_up, scheduler_class(optimizer)], milestones=[4])
    sizes = step_sizes(optimizer, scheduler, 8)
    assert sizes[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert sizes[4:] == pytest.approx([decay_factor(law, float(k)) for k in range(5)])


@pytest.mark.parametrize(("scheduler_class", "law"), SCHEDULERS)
def test_scheduler_before_another_in_a_sequence(scheduler_class, law):
    optimizer = make_optimizer()
    scheduler = SequentialLR(
        optimizer, [scheduler_class(optimizer), LambdaLR(optimizer, lambda _: 0.125)], milestones=[3]
    )
    expected = [*(decay_factor(law, float(k)) for k in range(3)), 0.125, 0.125]
    assert step_sizes(optimizer, scheduler, 4) == pytest.approx(expected)


@pytest.mark.parametrize(("scheduler_class", "law"), SCHEDULERS)
def test_scheduler_multiplies_in_a_chain(scheduler_class, law):
    optimizer = make_optimizer()
    scheduler = ChainedScheduler([scheduler_class(optimizer), ExponentialLR(optimizer, 0.9)])
    assert step_sizes(optimizer, scheduler, 6) == pytest.approx(
        [decay_factor(law, float(k)) * 0.9**k for k in range(7)]
    )


@pytest.mark.parametrize(("scheduler_class", "law"), SCHEDULERS)
def test_state_dict_round_trip_goes_on_where_it_stopped(scheduler_class, law):
    optimizer = make_optimizer()
    scheduler = scheduler_class(optimizer, 0.7, steps_per_epoch=3)
    step_sizes(optimizer, scheduler, 5)
    saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    unbroken = step_sizes(optimizer, scheduler, 5)

    optimizer = make_optimizer()
    scheduler = scheduler_class(optimizer)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert step_sizes(optimizer, scheduler, 5) == unbroken


@pytest.mark.parametrize(("scheduler_class", "law"), SCHEDULERS)
def test_last_epoch_goes_on_without_a_saved_scheduler(scheduler_class, law):
    optimizer = make_optimizer()
    step_sizes(optimizer, scheduler_class(optimizer), 5)
    sizes = step_sizes(optimizer, scheduler_class(optimizer, last_epoch=4), 3)
    assert sizes == pytest.approx([decay_factor(law, float(k)) for k in range(5, 9)])


def test_a_tensor_step_size_stays_the_same_tensor():
    lr = torch.tensor(0.5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    sizes = step_sizes(optimizer, PowerDecay(optimizer, 1.0), 3)
    assert optimizer.param_groups[0]["lr"] is lr
    assert sizes == pytest.approx([0.5 / (1 + k) for k in range(4)])


@pytest.mark.parametrize(
    ("options", "named"), [({"power": -1.0}, "power"), ({"steps_per_epoch": 0}, "steps_per_epoch")]
)
def test_scheduler_names_bad_arguments(options, named):
    with pytest.raises(ValueError, match=named):
        PowerDecay(make_optimizer(), **options)
