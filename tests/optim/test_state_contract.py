"""What torch's own optimizers promise of their state, held for INNA and INNAprop, with and without members."""

import copy
import io
import pickle

import pytest
import torch

from inna_tune.optim import INNA, INNAprop

MEMBERS = 3


def tensors(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


CASES = {
    "INNA": (INNA, {"lr": 0.05}),
    "INNA decaying": (INNA, {"lr": 0.05, "decay_power": 0.5, "weight_decay": 0.01}),
    "INNA decoupled, foreach": (
        INNA,
        {"lr": 0.05, "decoupled_weight_decay": True, "weight_decay": 0.01, "foreach": True},
    ),
    "INNA by tensors": (INNA, {"lr": 0.05, "weight_decay": 0.01, "step_factor": 0.2}),
    "INNA capturable": (INNA, {"lr": torch.tensor(0.05), "capturable": True}),
    "INNA population": (INNA, {"lr": tensors(0.01, 0.05, 0.1), "alpha": tensors(0.2, 0.5, 1.0)}),
    "INNA population by tensors": (
        INNA,
        {"lr": tensors(0.01, 0.05, 0.1), "step_factor": tensors(0.2, 1.0, 0.5)},
    ),
    "INNAprop": (INNAprop, {"lr": 0.01}),
    "INNAprop capturable": (INNAprop, {"lr": 0.01, "capturable": True}),
    "INNAprop population": (INNAprop, {"lr": tensors(0.001, 0.01, 0.1), "sigma": 0.9}),
}
EVERY = pytest.mark.parametrize("case", CASES)


def parameters(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in ((MEMBERS, 4), (MEMBERS, 2))
    ]


def make(case, params=None, **more):
    kind, settings = CASES[case]
    return kind(parameters() if params is None else params, **{**copy.deepcopy(settings), **more})


def owned(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def run(optimizer, steps):
    for _ in range(steps):
        for p in owned(optimizer):
            p.grad = (p.detach() - 0.5).sign() + p.detach()
        optimizer.step()
    return [p.detach().clone() for p in owned(optimizer)]


def stepped(case, **more):
    optimizer = make(case, **more)
    run(optimizer, 3)
    return optimizer


def onto(optimizer, params):
    """Give ``params`` the weights that an optimizer's parameters have."""
    with torch.no_grad():
        for new, old in zip(params, owned(optimizer), strict=True):
            new.copy_(old)
    return params


def assert_goes_on_alike(first, second, rtol=0.0):
    for a, b in zip(run(first, 3), run(second, 3), strict=True):
        torch.testing.assert_close(a, b.to(a), rtol=rtol, atol=rtol)


def by_deepcopy(optimizer):
    return copy.deepcopy(optimizer)


def by_pickle(optimizer):
    return pickle.loads(pickle.dumps(optimizer))


def by_torch(optimizer):
    file = io.BytesIO()
    torch.save(optimizer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def after_loading(optimizer):
    optimizer.load_state_dict(optimizer.state_dict())
    return optimizer


COPIERS = [by_deepcopy, by_pickle, by_torch, after_loading]


@EVERY
@pytest.mark.parametrize("copier", COPIERS)
def test_a_state_loads_any_number_of_times_into_any_copy(case, copier):
    optimizer = stepped(case)
    saved = copy.deepcopy(optimizer.state_dict())
    other = copier(copier(make(case, parameters())))
    for _ in range(3):
        run(other, 1)
        other.load_state_dict(saved)
    onto(optimizer, owned(other))
    assert_goes_on_alike(optimizer, other)


@EVERY
@pytest.mark.parametrize("copier", COPIERS)
def test_what_a_copy_saves_loads_into_the_original_and_keeps_its_keys(case, copier):
    optimizer = stepped(case)
    twin = copier(copy.deepcopy(optimizer))
    assert twin.state_dict().keys() == optimizer.state_dict().keys()
    for own, other in zip(
        optimizer.state_dict()["param_groups"], twin.state_dict()["param_groups"], strict=True
    ):
        assert own.keys() == other.keys()
    assert twin.defaults.keys() >= make(case).defaults.keys()
    optimizer.load_state_dict(twin.state_dict())
    assert_goes_on_alike(optimizer, twin)


@EVERY
def test_loading_changes_nothing_of_what_was_loaded_and_shares_no_memory(case):
    saved = stepped(case).state_dict()
    before = copy.deepcopy(saved)
    other = make(case)
    other.load_state_dict(saved)
    run(other, 3)
    assert_same(saved, before)
    for group in other.param_groups:
        for key, value in group.items():
            if torch.is_tensor(value):
                value.mul_(2.0)
                assert key in saved["param_groups"][0]
    assert_same(saved, before)


def assert_same(one, other):
    assert one["state"].keys() == other["state"].keys()
    for pairs in (
        zip(one["param_groups"], other["param_groups"], strict=True),
        ((one["state"][i], other["state"][i]) for i in one["state"]),
    ):
        for a, b in pairs:
            assert a.keys() == b.keys()
            for key in a:
                assert torch.equal(a[key], b[key]) if torch.is_tensor(a[key]) else a[key] == b[key]


@EVERY
def test_a_file_read_with_weights_only_goes_on(case):
    optimizer = stepped(case)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = make(case, onto(optimizer, parameters()))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_goes_on_alike(optimizer, other)


@pytest.mark.parametrize(
    ("case", "lacking"),
    [
        (case, option)
        for case, (_, settings) in CASES.items()
        for option in (
            "maximize",
            "foreach",
            "fused",
            "capturable",
            "differentiable",
            "weight_decay",
            "decay_power",
            "step_factor",
        )
        if option not in settings
    ],
)
def test_a_state_of_a_version_without_an_option_loads_with_its_default(case, lacking):
    optimizer = stepped(case)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group.pop(lacking, None)
    other = make(case, onto(optimizer, parameters()))
    other.load_state_dict(saved)
    assert other.param_groups[0].keys() == optimizer.param_groups[0].keys()
    assert_goes_on_alike(optimizer, other)


@EVERY
def test_a_pickle_of_a_version_without_an_option_steps_with_its_default(case):
    optimizer = stepped(case)
    twin = copy.deepcopy(optimizer)
    state = twin.__getstate__()
    for options in (state["defaults"], *state["param_groups"]):
        options.pop("maximize")
    older = object.__new__(type(twin))
    older.__setstate__(state)
    older.add_param_group({"params": [torch.nn.Parameter(torch.ones(MEMBERS, 1, dtype=torch.float64))]})
    assert [group["maximize"] for group in older.param_groups] == [False, False]
    older.param_groups.pop()
    assert_goes_on_alike(optimizer, older)


@EVERY
def test_hooks_of_loading_see_and_make_what_is_loaded(case):
    optimizer, other = stepped(case), make(case)
    seen = []

    def rename(_, state_dict):
        # As for a checkpoint under names of an own: only the hook makes a state of it that can be loaded.
        return {key.removeprefix("own."): value for key, value in state_dict.items()}

    def look(loaded):
        seen.append(
            [loaded.state[p]["momentum"].dtype for p in owned(loaded)] + [loaded.param_groups[0]["alpha"]]
        )
        loaded.param_groups[0]["beta"] = 0.125

    handles = [
        other.register_load_state_dict_pre_hook(rename),
        other.register_load_state_dict_post_hook(look),
    ]
    named = {f"own.{key}": value for key, value in optimizer.state_dict().items()}
    other.load_state_dict(named)
    assert len(seen) == 1
    assert seen[0][:2] == [torch.float64] * 2
    assert other.param_groups[0]["beta"] == 0.125
    for handle in handles:
        handle.remove()
    other.load_state_dict(optimizer.state_dict())
    assert len(seen) == 1
    assert other.param_groups[0]["beta"] == optimizer.param_groups[0]["beta"]
    with pytest.raises((ValueError, KeyError)):
        other.load_state_dict(named)
    assert not other._optimizer_load_state_dict_pre_hooks
    assert not other._optimizer_load_state_dict_post_hooks


@EVERY
def test_hooks_of_saving(case):
    optimizer = stepped(case)
    calls = []
    optimizer.register_state_dict_pre_hook(lambda o: calls.append(type(o)))
    optimizer.register_state_dict_post_hook(lambda _, saved: {**saved, "note": 1})
    saved = optimizer.state_dict()
    assert (calls, saved["note"]) == ([type(optimizer)], 1)
    other = make(case, onto(optimizer, parameters()))
    other.load_state_dict(saved)
    assert_goes_on_alike(optimizer, other)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_state_loads_into_parameters_of_another_type(case, dtype):
    optimizer = stepped(case)
    other = make(case, parameters(dtype=dtype))
    other.load_state_dict(optimizer.state_dict())
    wide = torch.float32
    for p, source in zip(owned(other), owned(optimizer), strict=True):
        kept = other.state[p]["momentum"]
        assert kept.dtype == wide
        torch.testing.assert_close(kept, optimizer.state[source]["momentum"].to(wide))
    run(other, 2)
    back = make(case)
    back.load_state_dict(other.state_dict())
    assert {back.state[p]["momentum"].dtype for p in owned(back)} == {torch.float64}
    assert all(p.isfinite().all() for p in run(back, 2))


@EVERY
def test_a_state_loads_onto_another_device(case):
    optimizer = stepped(case)
    placed = {
        name: value.to("meta") if torch.is_tensor(value) and value.dim() else value
        for name, value in CASES[case][1].items()
    }
    there = make(case, [torch.nn.Parameter(p.detach().to("meta")) for p in owned(optimizer)], **placed)
    there.load_state_dict(optimizer.state_dict())
    for p in owned(there):
        devices = {v.device.type for v in there.state[p].values() if torch.is_tensor(v) and v.dim()}
        assert devices == {"meta"}
    settings = [v for v in there.param_groups[0].values() if torch.is_tensor(v) and v.dim()]
    assert {v.device.type for v in settings} <= {"meta"}


def by_group(case):
    first, second = parameters()
    optimizer = make(case, [{"params": [first], "weight_decay": 0.5}, {"params": [second]}])
    run(optimizer, 2)
    return optimizer


@EVERY
def test_groups_keep_their_own_settings(case):
    optimizer = by_group(case)
    first, second = onto(optimizer, parameters())
    other = make(case, [first])
    other.add_param_group({"params": [second]})
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["weight_decay"] == 0.5
    assert other.param_groups[1]["weight_decay"] == CASES[case][1].get(
        "weight_decay", make(case).defaults["weight_decay"]
    )
    assert_goes_on_alike(optimizer, other)


@EVERY
@pytest.mark.parametrize("copier", COPIERS)
def test_a_group_added_to_a_copy_is_saved_and_loaded_like_the_others(case, copier):
    grown = copier(stepped(case))
    grown.add_param_group({"params": [torch.nn.Parameter(torch.ones(MEMBERS, 1, dtype=torch.float64))]})
    run(grown, 2)
    other = make(case)
    other.add_param_group({"params": [torch.nn.Parameter(torch.ones(MEMBERS, 1, dtype=torch.float64))]})
    other.load_state_dict(grown.state_dict())
    onto(grown, owned(other))
    assert_goes_on_alike(grown, other)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        make(case).load_state_dict(grown.state_dict())


@EVERY
def test_names_of_parameters_come_along(case):
    named = make(case, list(zip(("in", "out"), parameters(), strict=True)))
    run(named, 2)
    saved = named.state_dict()
    assert saved["param_groups"][0]["param_names"] == ["in", "out"]
    nameless = make(case, onto(named, parameters()))
    nameless.load_state_dict(saved)
    assert nameless.param_groups[0]["param_names"] == ["in", "out"]
    assert_goes_on_alike(named, nameless)
    saved = stepped(case).state_dict()
    named.load_state_dict(saved)
    assert named.param_groups[0]["param_names"] == ["in", "out"]


@EVERY
def test_groups_that_a_wrapper_exchanges(case):
    # As accelerate and Fabric do: the wrapped optimizer's groups and state are read and set as a whole.
    optimizer = stepped(case)
    other = make(case)
    exchanged = [
        {**{k: copy.deepcopy(v) for k, v in group.items() if k != "params"}, "params": onto(optimizer, own)}
        for group, own in zip(optimizer.param_groups, [parameters()], strict=True)
    ]
    other.param_groups = exchanged
    for _ in range(2):
        other.load_state_dict(other.state_dict())
        other.load_state_dict(optimizer.state_dict())
    assert_goes_on_alike(optimizer, other)


@EVERY
def test_a_state_of_a_parameter_that_never_had_a_gradient(case):
    optimizer = make(case)
    owned(optimizer)[0].grad = torch.ones(MEMBERS, 4, dtype=torch.float64)
    optimizer.step()
    other = make(case, onto(optimizer, parameters()))
    for _ in range(2):
        other.load_state_dict(optimizer.state_dict())
    assert_goes_on_alike(optimizer, other)


@EVERY
def test_what_belongs_to_no_parameter_is_carried_along(case):
    saved = stepped(case).state_dict()
    saved["state"]["epoch"] = 7
    other = make(case)
    other.load_state_dict(saved)
    assert other.state["epoch"] == 7


@pytest.mark.parametrize("case", ["INNA", "INNA decaying", "INNAprop"])
def test_a_scheduler_goes_on_with_the_state(case):
    def scheduled(optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)

    def train(optimizer, scheduler):
        for _ in range(3):
            run(optimizer, 1)
            scheduler.step()

    optimizer = make(case)
    scheduler = scheduled(optimizer)
    train(optimizer, scheduler)
    other = make(case, onto(optimizer, parameters()))
    follower = scheduled(other)
    for _ in range(2):
        follower.load_state_dict(scheduler.state_dict())
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(optimizer, scheduler)
    train(other, follower)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for a, b in zip(owned(optimizer), owned(other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", ["INNA", "INNA decaying", "INNAprop"])
def test_a_gradient_scaler_goes_on_with_the_state(case):
    def train(optimizer, scaler, steps):
        for step in range(steps):
            for p in owned(optimizer):
                p.grad = None
            scaler.scale(sum((p * p).sum() for p in owned(optimizer))).backward()
            if step == 1:
                owned(optimizer)[0].grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()

    optimizer, scaler = make(case), torch.amp.GradScaler("cpu", init_scale=8.0)
    train(optimizer, scaler, 3)
    other, another = make(case, onto(optimizer, parameters())), torch.amp.GradScaler("cpu", init_scale=2.0)
    for _ in range(2):
        other.load_state_dict(optimizer.state_dict())
        another.load_state_dict(scaler.state_dict())
    train(optimizer, scaler, 3)
    train(other, another, 3)
    for a, b in zip(owned(optimizer), owned(other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("one", "other"), [("INNA", "INNAprop"), ("INNAprop", "INNA")])
@pytest.mark.parametrize("steps", [0, 2])
def test_inna_and_innaprop_refuse_each_others_state(one, other, steps):
    writer = make(one)
    run(writer, steps)
    reader = stepped(other)
    before = copy.deepcopy(reader.state_dict())
    with pytest.raises(ValueError, match="state_dict is not that of INNA"):
        reader.load_state_dict(writer.state_dict())
    assert_same(reader.state_dict(), before)
