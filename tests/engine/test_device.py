"""On an accelerator nothing waits, nothing mixes, and steps are few launches; tried on one that is none."""

import json

import pytest
import torch
from scipy import stats

from inna_tune.engine.counted_dropout import CountedDropout, row_keys
from tests.engine.on_device import CHECKS
from tests.warm import Program


@pytest.fixture(scope="module")
def failures():
    """Of every check, all in one process that has the device."""
    with Program(
        "from tests.engine.on_device import CHECKS, main; import json; print(json.dumps(main(CHECKS)))"
    ) as run:
        output, errors = run.communicate()
        assert run.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS)
def test_on_a_stand_in_device(check, failures):
    assert not failures[check], failures[check]


# ---------------------------------------------------------------------- masks that are counted, not drawn


def counted(rates, *, width=37, steps=3, batch_size=50, dtype=torch.float32, seed=0, rows=None, keys=None):
    """Masks of an epoch, [P, steps · batch_size, width]."""
    dropout = CountedDropout(rates, width, torch.empty(0, dtype=dtype), keys)
    streams = [torch.Generator().manual_seed(seed + i) for i in range(len(rates))]
    if rows is None:
        rows = torch.arange(steps * batch_size).expand(len(rates), -1)
    return dropout.masks(dropout.draw(streams, [steps] * len(rates)), rows, 0, batch_size=batch_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.001, 0.05, 0.25, 0.5, 0.9])
def test_the_share_that_is_dropped_and_the_mean(rate, dtype):
    (mask,) = counted([rate], steps=4, batch_size=500, width=100, dtype=dtype)
    share = round(rate * 65536) / 65536
    assert mask.dtype == dtype
    assert stats.binomtest(int((mask == 0).sum()), mask.numel(), share).pvalue > 1e-4
    (kept,) = set(mask.unique().tolist()) - {0.0}
    assert kept * (1 - share) == pytest.approx(1, rel=1e-6)


def test_who_drops_nothing_keeps_every_unit():
    masks = counted([0.5, 0.0])
    assert (masks[1] == 1).all()
    assert (masks[0] == 0).any()


def test_a_mask_does_not_depend_on_company_nor_on_how_many_steps_are_drawn_together():
    together = counted([0.5, 0.0, 0.3])
    dropout = CountedDropout([0.3], 37, torch.empty(0))
    keys = dropout.draw([torch.Generator().manual_seed(2)], [3])
    for step in range(3):
        alone = dropout.masks(keys, torch.arange(50)[None], step, batch_size=50)
        assert torch.equal(alone[0], together[2, step * 50 : (step + 1) * 50])


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_neighbours_steps_and_members_are_independent(rate):
    """Of two places side by side, above each other, in the next step or in the next member, both are dropped as often."""
    masks = counted([rate, rate], steps=2, batch_size=300, width=256) == 0
    steps = masks.view(2, 2, 300, 256)
    pairs = {
        "units": (steps[..., :-1], steps[..., 1:]),
        "units of a word": (steps[..., ::4], steps[..., 2::4]),
        "words": (steps[..., :-4], steps[..., 4:]),
        "rows": (steps[:, :, :-1], steps[:, :, 1:]),
        "steps": (steps[:, 0], steps[:, 1]),
        "members": (steps[0], steps[1]),
    }
    for name, (one, other) in pairs.items():
        both = int((one & other).sum())
        assert stats.binomtest(both, one.numel(), rate**2).pvalue > 1e-4, name


def test_places_of_all_bits_drop_alike():
    (mask,) = counted([0.25], steps=1, batch_size=8000, width=64)
    dropped = (mask == 0).sum(0).numpy()
    assert stats.chi2(64).sf((((dropped - 2000) ** 2) / (2000 * 0.75)).sum()) > 1e-4


def test_keys_of_nearby_numbers_give_independent_masks():
    """Keys that differ in one bit, the lowest or the highest, have nothing in common."""
    dropout = CountedDropout([0.5] * 3, 256, torch.empty(0))
    keys = torch.tensor([[1, 0, 1 - 2**63]])
    masks = dropout.masks(keys, torch.arange(200).expand(3, -1), 0, batch_size=200) == 0
    for other in (1, 2):
        agree = int((masks[0] == masks[other]).sum())
        assert stats.binomtest(agree, masks[0].numel(), 0.5).pvalue > 1e-4


def test_rows_of_equal_columns_drop_the_same_units_wherever_they_are():
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[7], x[9, 0], x[3, 0] = x[2], 0.0, -0.0
    keys = row_keys(x, (3,))
    assert len(set(keys.tolist())) == 19
    assert keys[7] == keys[2]
    masks = counted([0.5], width=64, steps=1, batch_size=20, rows=torch.arange(20)[None], keys=keys)[0]
    assert torch.equal(masks[7], masks[2])
    assert not torch.equal(masks[7], masks[3])
    turned = counted([0.5], width=64, steps=1, batch_size=20, rows=torch.arange(19, -1, -1)[None], keys=keys)[
        0
    ]
    assert torch.equal(turned.flip(0), masks)


def test_padding_and_the_sign_of_zero_make_no_other_row():
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[1, 2] = 0.0
    padded = torch.zeros(6, 7, dtype=torch.float64)
    padded[:, :3], padded[:, 5:6] = x[:, :3], x[:, 3:]
    assert torch.equal(row_keys(padded, (5,)), row_keys(x, (3,)))
    other = x.clone()
    other[1, 2] = -0.0
    assert torch.equal(row_keys(other, (3,)), row_keys(x, (3,)))
    turned = x[:, [1, 0, 2, 3]]
    assert not (row_keys(turned, (3,)) == row_keys(x, (3,))).any(), "columns are told apart"
