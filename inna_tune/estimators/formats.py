"""Older model files, brought to the present format one version at a time."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Content = dict[str, Any]
Tensors = dict[str, Tensor]

FORMAT_VERSION = 3

# How format 1 wrote the level of missing values.
_MISSING_1 = "\0missing"


def upgrade(version: int, content: Content, tensors: Tensors) -> tuple[Content, Tensors]:
    """Bring a file's content and tensors to ``FORMAT_VERSION``.

    Raises
    ------
    KeyError, TypeError, ValueError
        If they are not of the version they claim to be.
    """
    for v in range(version, FORMAT_VERSION):
        content, tensors = _STEPS[v](content, tensors)
    return content, tensors


def _from_1_to_2(content: Content, tensors: Tensors) -> tuple[Content, Tensors]:
    """The outputs of a column used to lie side by side; now numbers come first, then all others."""
    columns = [_column_from_1(column) for column in content["encoder"]]
    is_number: list[bool] = []
    for column in columns:
        if column["kind"] == "numeric":
            is_number += [True] + [False] * (column["indicator"] is not None)
        elif column["kind"] == "categorical":
            is_number += [False] * (len(column["levels"]) + (column["shares"][-1] > 0))
    net = content["net"]
    if len(is_number) != net["in_features"]:
        raise ValueError("the encoder does not fit the net")
    order = sorted(range(len(is_number)), key=lambda i: not is_number[i])
    width = [*net["hidden_layer_sizes"], net["out_features"]][0]
    weights = tensors["weights"].clone()
    first = weights[:, : len(order) * width].reshape(-1, len(order), width)
    weights[:, : len(order) * width] = first[:, order].reshape(len(weights), -1)
    encoder = {"parameters": {"embed": False, "text": "never"}, "columns": columns}
    return content | {"encoder": encoder}, tensors | {"weights": weights}


def _column_from_1(column: Content) -> Content:
    kind, name = column["kind"], column["name"]
    if kind == "numeric":
        kept = {key: column[key] for key in ("center", "scale", "indicator")} | {"quantiles": None}
    elif kind == "categorical":
        kept = {
            "levels": [None if level == _MISSING_1 else level for level in column["levels"]],
            "shares": column["shares"],
        }
    else:
        kept = {"reason": "constant"}
    return {"kind": kind, "name": name} | kept


def _from_2_to_3(content: Content, tensors: Tensors) -> tuple[Content, Tensors]:
    """There was but one kind of net, which took every column for a number."""
    net = {
        "n_numeric": 0,
        "categories": [],
        "block": "plain",
        "activation": "relu",
        "numeric_embedding": "none",
        "embedding_dim": 4,
        "n_frequencies": 16,
        "frequency_scale": 0.1,
    }
    return content | {"net": net | content["net"]}, tensors


_STEPS: dict[int, Callable[[Content, Tensors], tuple[Content, Tensors]]] = {1: _from_1_to_2, 2: _from_2_to_3}
