import pytest
import torch
from scipy import stats

from inna_tune.engine.dropout import fill_dropout


def drawn(rate, shape=(200, 500), seed=0, dtype=torch.float32):
    mask = torch.full(shape, float("nan"), dtype=dtype)
    fill_dropout(mask, rate, torch.Generator().manual_seed(seed))
    return mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [1e-4, 0.1, 0.25, 0.5, 0.9, 0.99999])
def test_the_share_that_is_dropped_and_the_mean(rate, dtype):
    mask = drawn(rate, dtype=dtype)
    dropped = int((mask == 0).sum())
    assert stats.binomtest(dropped, mask.numel(), round(rate * 65536) / 65536).pvalue > 1e-4
    values = set(mask.unique().tolist()) - {0.0}
    assert len(values) <= 1
    for value in values:
        # The mean of a mask is one: kept units are scaled by the inverse of their share.
        assert value * (1 - round(rate * 65536) / 65536) == pytest.approx(1, rel=1e-6)


def test_rate_zero_drops_nothing():
    assert (drawn(0.0) == 1).all()


def test_four_places_side_by_side_are_independent():
    """Of the sixteen patterns of four neighbouring places each comes as often as independence has it."""
    keep = (drawn(0.3, shape=(100_000, 4)) > 0).long()
    pattern = (keep * torch.tensor([1, 2, 4, 8])).sum(1)
    counts = torch.bincount(pattern, minlength=16).numpy()
    kept = torch.tensor([[b >> i & 1 for i in range(4)] for b in range(16)]).sum(1).numpy()
    assert stats.chisquare(counts, 100_000 * 0.7**kept * 0.3 ** (4 - kept)).pvalue > 1e-4


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 4), (0, 8), (2, 3, 5)])
def test_any_shape_and_the_same_seed_the_same_mask(shape):
    assert torch.equal(drawn(0.5, shape, 1), drawn(0.5, shape, 1))
    assert not drawn(0.5, shape, 1).isnan().any()


def test_a_slice_of_a_larger_mask_is_filled_alone():
    whole = torch.ones(6, 10, 4)
    fill_dropout(whole[2, :7], 0.5, torch.Generator().manual_seed(0))
    assert (whole[[0, 1, 3, 4, 5]] == 1).all()
    assert (whole[2, 7:] == 1).all()
    assert torch.equal(whole[2, :7], drawn(0.5, (7, 4)))


def test_a_mask_that_lies_otherwise_in_memory_is_filled_alike():
    turned = torch.ones(7, 5).T
    fill_dropout(turned, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(turned, drawn(0.3, (5, 7)))


@pytest.mark.parametrize("rate", [0.25, 0.3])
def test_places_of_all_bits_drop_alike(rate):
    """Whichever of the 64 bits of a draw is a place's."""
    dropped = (drawn(rate, (5_000, 64)) == 0).sum(0).numpy()
    expected = 5_000 * round(rate * 65536) / 65536
    assert stats.chi2(64).sf(((dropped - expected) ** 2 / (expected * (1 - rate))).sum()) > 1e-4


def test_masks_of_two_steps_are_independent():
    stream = torch.Generator().manual_seed(0)
    masks = torch.ones(2, 300, 300)
    for mask in masks:
        fill_dropout(mask, 0.5, stream)
    both = int((masks == 0).all(0).sum())
    assert stats.binomtest(both, 90_000, 0.25).pvalue > 1e-4
