"""Where the embeddings start, and what that means for the curvature; their definitions are checked with the whole net's."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm
from torch.nn import functional as F

from inna_tune.nets import TabularNet
from inna_tune.nets.categorical import CategoricalEmbedding
from inna_tune.nets.numeric import PBLDEmbedding, PeriodicEmbedding, PiecewiseEmbedding
from inna_tune.optim.calibration import curvature
from tests.nets.reference import stack

EMBEDDINGS = {"periodic": PeriodicEmbedding, "pbld": PBLDEmbedding, "piecewise": PiecewiseEmbedding}


def quantiles(n_points):
    return torch.special.ndtri((torch.arange(n_points, dtype=torch.float64) + 0.5) / n_points)


@pytest.mark.parametrize("n_frequencies", [1, 4, 48])
@pytest.mark.parametrize("scale", [1e-6, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["periodic", "pbld", "piecewise"])
def test_outputs_start_centred_with_unit_variance(kind, scale, n_frequencies):
    embedding = EMBEDDINGS[kind](500, 4, n_frequencies, scale)
    values = embedding.initialize(torch.Generator().manual_seed(0), n_used=500, dtype=torch.float64)
    x = quantiles(500).expand(1, 500, -1)
    stacked = {name: value[None] for name, value in values.items()}
    outputs = embedding(stacked, x)
    if kind == "periodic":
        # What the ReLU hides: the linear map, centred, of variance 2.
        linear = super(PeriodicEmbedding, embedding).__call__(stacked, x)
        assert torch.equal(outputs, linear.relu())
        outputs = linear / math.sqrt(2)
    assert outputs.mean(-1).abs().max() < 2e-2
    assert outputs.var(-1).mean().item() == pytest.approx(1, rel=0.1)


def test_frequencies_start_at_their_scale_and_phases_go_all_round():
    embedding = PBLDEmbedding(500, 3, 16, 0.3)
    values = embedding.initialize(torch.Generator().manual_seed(0), n_used=500)
    assert values["numeric.frequency"].std().item() == pytest.approx(1, rel=0.03)
    phase = values["numeric.phase"]
    torch.testing.assert_close(
        PBLDEmbedding(500, 3, 16, 0.01).initialize(torch.Generator().manual_seed(0), n_used=500)[
            "numeric.phase"
        ],
        phase / (2 * math.pi * 0.01),
    )
    assert -math.pi <= phase.min() < -3.13
    assert 3.13 < phase.max() <= math.pi
    assert phase.std().item() == pytest.approx(2 * math.pi / math.sqrt(12), rel=0.03)


def test_piecewise_starts_straight_and_stays_constant_outside():
    embedding = PiecewiseEmbedding(3, 2, 8, 0.1)
    values = embedding.initialize(torch.Generator().manual_seed(0), n_used=3, dtype=torch.float64)
    x = torch.tensor([-9.0, -3.0, -1.3, 0.0, 0.4, 3.0, 70.0], dtype=torch.float64)
    outputs = embedding({n: v[None] for n, v in values.items()}, x.expand(1, 3, -1)).view(6, -1)
    slope = outputs[:, 4:5] / 0.4
    torch.testing.assert_close(outputs, slope * x.clamp(-3, 3))


@pytest.mark.parametrize("evenness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n_pieces", [1, 2, 10, 500])
def test_knots_part_a_mixture_of_a_normal_and_an_even_law_evenly(n_pieces, evenness):
    knots = np.array(PiecewiseEmbedding(1, 1, n_pieces, 0.1, evenness).knots)
    assert knots[0] == -3
    assert knots[-1] == 3
    assert (np.diff(knots) > 0).all()
    np.testing.assert_allclose(knots, -knots[::-1], atol=2e-9)
    below = (1 - evenness) * truncnorm(-3, 3).cdf(knots) + evenness * (knots + 3) / 6
    np.testing.assert_allclose(below, np.arange(n_pieces + 1) / n_pieces, atol=2e-9)


@pytest.mark.parametrize("evenness", [-0.1, 1.1, float("nan")])
def test_an_evenness_that_is_no_share_is_refused(evenness):
    with pytest.raises(ValueError, match="evenness must lie between 0 and 1"):
        TabularNet(2, (3,), 1, n_numeric=2, numeric_embedding="piecewise", evenness=evenness)


@pytest.mark.parametrize("kind", ["periodic", "pbld", "piecewise"])
@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
def test_the_curvature_stays_near_that_without_embedding(kind, scale):
    """The default step follows from it; the published start of c at scale 0.01 would raise it tenfold."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 256, 12, generator=generator)
    target = torch.randint(3, (3, 256), generator=generator)

    def measure(**choices):
        net = TabularNet(12, (64, 64), 3, n_numeric=12, **choices)
        parameters = {name: value.requires_grad_() for name, value in stack(net, range(3)).items()}

        def loss():
            output = net(parameters, x)
            return F.cross_entropy(output.flatten(0, 1), target.flatten(), reduction="sum") / 256

        return curvature(loss, parameters.values(), member_axis=True).mean()

    assert 0.6 < measure(numeric_embedding=kind, frequency_scale=scale) / measure() < 2


def test_vectors_have_8_entries_or_as_many_as_there_are_codes():
    assert CategoricalEmbedding((3, 20_000, 2)).dim == 8
    assert CategoricalEmbedding((3, 5, 2)).dim == 5
    assert CategoricalEmbedding((1,)).dim == 1


def test_many_codes():
    net = TabularNet(3, (4,), 1, n_numeric=1, categories=(20_000, 7))
    parameters = {name: value.requires_grad_() for name, value in stack(net, [0, 1]).items()}
    assert parameters["categories.weight"].shape == (2, 20_007, 8)
    assert parameters["categories.weight"].std().item() == pytest.approx(0.1, rel=0.02)
    x = torch.zeros(2, 3, 3)
    x[0, :, 1] = torch.tensor([19_999.0, 0.0, 19_999.0])
    x[:, :, 2] = 6.0
    net(parameters, x).sum().backward()
    touched = parameters["categories.weight"].grad.abs().sum(2) > 0
    assert touched[0].nonzero().flatten().tolist() == [0, 19_999, 20_006]
    assert touched[1].nonzero().flatten().tolist() == [0, 20_006]
