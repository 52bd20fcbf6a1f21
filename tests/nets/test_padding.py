"""Members of fewer columns than the net is wide: the padding has no influence, at the start or ever."""

import pytest
import torch

from inna_tune.nets import TabularNet
from inna_tune.nets.numeric import NUMERIC_EMBEDDINGS
from inna_tune.optim.inna import INNA
from tests.nets.reference import rows, stack

NARROW, WIDE = (2, 3), (5, 4)
CATEGORIES = (3, 20)
DIM = 3


def make(columns, embedding, **choices):
    return TabularNet(
        sum(columns) + len(CATEGORIES),
        (6, 5),
        2,
        n_numeric=columns[0],
        categories=CATEGORIES,
        numeric_embedding=embedding,
        embedding_dim=DIM,
        n_frequencies=4,
        **choices,
    )


def padded_rows(x):
    """Rows of the narrow table as the wide one holds them."""
    parts = []
    start = 0
    for narrow, wide in zip(NARROW, WIDE, strict=True):
        parts += [x[..., start : start + narrow], x.new_zeros(*x.shape[:2], wide - narrow)]
        start += narrow
    return torch.cat([*parts, x[..., start:]], 2)


def own_entries(name, wide, embedding):
    """Mask over a parameter of the wide net: what belongs to the narrow one's columns."""
    shape = wide.parameter_shapes[name]
    mask = torch.ones(shape, dtype=torch.bool)
    if name.startswith("numeric."):
        mask[NARROW[0] :] = False
    elif name == "layers.0.weight":
        numeric = {"none": [1], "periodic": [DIM], "pbld": [DIM - 1, 1], "piecewise": [DIM]}[embedding]
        start = 0
        for width in numeric:
            mask[start + width * NARROW[0] : start + width * WIDE[0]] = False
            start += width * WIDE[0]
        mask[start + NARROW[1] : start + WIDE[1]] = False
    return mask


def train(net, parameters, x, target, *, weight_decay=0.0, steps=20):
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    optimizer = INNA(leaves.values(), lr=0.02, alpha=0.5, beta=0.05, weight_decay=weight_decay)
    gradients = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for _ in range(steps):
        optimizer.zero_grad()
        (net(leaves, x) - target).square().mean((1, 2)).sum().backward()
        for name, leaf in leaves.items():
            gradients[name] += leaf.grad.abs()
        optimizer.step()
    return {name: leaf.detach() for name, leaf in leaves.items()}, gradients


@pytest.mark.parametrize("block", ["plain", "residual"])
@pytest.mark.parametrize("embedding", NUMERIC_EMBEDDINGS)
def test_padding_never_has_any_influence(embedding, block):
    narrow, wide = make(NARROW, embedding, block=block), make(WIDE, embedding, block=block)
    seeds = [1, 2]
    own = stack(narrow, seeds, dtype=torch.float64)
    padded = stack(wide, seeds, dtype=torch.float64, used_features=NARROW)
    x = rows(narrow, 2, 16)
    target = torch.randn(2, 16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def compare(tolerance):
        for name in own:
            mask = own_entries(name, wide, embedding).expand(padded[name].shape)
            assert not padded[name][~mask].any()
            torch.testing.assert_close(
                padded[name][mask], own[name].flatten(), rtol=tolerance, atol=tolerance
            )
        torch.testing.assert_close(
            wide(padded, padded_rows(x)), narrow(own, x), rtol=tolerance, atol=1e-12 + tolerance
        )

    compare(0)
    start = {name: value.clone() for name, value in own.items()}
    own, _ = train(narrow, own, x, target)
    padded, gradients = train(wide, padded, padded_rows(x), target)
    assert all((own[name] != start[name]).any() for name in own), "everything is trained"
    compare(1e-12)
    for name, gradient in gradients.items():
        assert not gradient[~own_entries(name, wide, embedding).expand(gradient.shape)].any()


@pytest.mark.parametrize("embedding", NUMERIC_EMBEDDINGS)
def test_a_member_without_columns_of_one_kind(embedding):
    wide = make(WIDE, embedding)
    for used in ((0, 3), (2, 0), (0, 0)):
        parameters = stack(wide, [0], used_features=used)
        assert all(value.isfinite().all() for value in parameters.values())
        alone = make(used, embedding).initialize(torch.Generator().manual_seed(0))
        assert torch.equal(parameters["layers.1.weight"][0], alone["layers.1.weight"])


@pytest.mark.parametrize(
    ("count", "sections"), [(0, (0, 0)), (3, (3, 0)), (5, (5, 0)), (7, (5, 2)), (9, (5, 4))]
)
def test_an_int_counts_from_the_first_column_on(count, sections):
    net = make(WIDE, "pbld")
    by_count, by_section = stack(net, [0], used_features=count), stack(net, [0], used_features=sections)
    assert all(torch.equal(by_count[name], by_section[name]) for name in by_count)


def test_all_columns_are_used_unless_told():
    net = make(WIDE, "periodic")
    silent, told = stack(net, [0]), stack(net, [0], used_features=WIDE)
    assert all(torch.equal(silent[name], told[name]) for name in silent)


@pytest.mark.parametrize("used", [(6, 0), (0, 5), (-1, 2), 10, -1])
def test_more_columns_than_there_are_is_refused(used):
    with pytest.raises(ValueError, match=r"used_features=.* does not fit 5 numeric and 4 other columns"):
        make(WIDE, "none").initialize(torch.Generator(), used_features=used)
