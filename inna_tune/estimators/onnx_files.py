"""Fitted estimators as files that leave Python: ONNX, which any runtime of it can run."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted

from inna_tune.estimators.exporting import RAW, to_module
from inna_tune.files import replacing

# Older ones lack Mish, and newer ones are unknown to some runtimes.
OPSET = 18
_EXAMPLE_ROWS = 4
_NEEDED = ("onnx", "onnxscript")


def to_program(model: Any, *, encoded: bool | str = "auto") -> torch.export.ExportedProgram:
    """A fitted estimator as a program of `torch.export`, for any number of rows.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
        Fitted.
    encoded : bool or "auto", default="auto"
        What it reads, see `to_module`.

    Returns
    -------
    torch.export.ExportedProgram
        ``torch.export.save`` writes it; ``.module()`` runs it.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        As `to_module`.
    """
    module = to_module(model, encoded=encoded)
    example = tuple(_example(module, model))
    rows = torch.export.Dim("rows", min=1)
    return torch.export.export(module, example, dynamic_shapes=(tuple({0: rows} for _ in example),))


def _example(module: Any, model: Any) -> list[torch.Tensor]:
    if module.input_names == (RAW,):
        return [torch.zeros(_EXAMPLE_ROWS, model.n_features_in_, dtype=torch.float64, device="cpu")]
    return [torch.zeros(_EXAMPLE_ROWS, width, device="cpu") for width in module.widths]


def to_onnx(model: Any, path: Any, *, encoded: bool | str = "auto") -> None:
    """Write a fitted estimator as an ONNX file.

    Its inputs are what `exported_inputs` makes of a table. Its outputs are ``probabilities`` [n_rows, n_classes] and ``place``,
    int64 [n_rows], that of the most probable class; or ``prediction``. What the columns and the classes are stands in its
    metadata, as JSON, under ``columns`` and ``classes``.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
        Fitted.
    path : path
        Replaced in one move if it exists.
    encoded : bool or "auto", default="auto"
        Whether it reads encoded rows, or a table of plain numbers itself; see `to_module`.

    Raises
    ------
    ImportError
        If onnx is not installed; the message says how it is.
    NotFittedError, TypeError, ValueError
        As `to_module`.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(f"writing ONNX needs {' and '.join(missing)}: pip install 'inna-tune[onnx]'")
    check_is_fitted(model, "weights_")
    import onnx

    module = to_module(model, encoded=encoded)
    program = to_program(model, encoded=encoded)
    with _without_asides():
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(module.input_names),
            output_names=list(module.output_names),
            verbose=False,
        )
    assert written is not None
    proto = written.model_proto
    notes = {
        "producer": "inna-tune",
        "columns": json.dumps([str(name) for name in model.schema_.names]),
        "encoded": json.dumps(module.input_names != (RAW,)),
    }
    if hasattr(model, "classes_"):
        notes["classes"] = json.dumps(model.classes_.tolist())
    onnx.helper.set_model_props(proto, notes)
    onnx.checker.check_model(proto)
    with replacing(path) as file:
        file.write_bytes(proto.SerializeToString())


@contextmanager
def _without_asides() -> Iterator[None]:
    """Keep back what torch's exporter says of packages that nothing here uses, and of its own insides."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
            )
            yield
    finally:
        logger.setLevel(level)
