"""Models in one file: tensors by safetensors, everything else as JSON in its header. Loading runs no code."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from sklearn.utils.validation import check_is_fitted

from inna_tune.engine import state_at_rest
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.classifier import InnaClassifier
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.estimators.regressor import InnaRegressor
from inna_tune.estimators.schema import TableSchema
from inna_tune.files import replacing
from inna_tune.nets import TabularNet

Tensors = dict[str, torch.Tensor]

# Of the file. Anything else is refused: who needs it takes the inna-tune that wrote it.
FORMAT_VERSION = 4

_CLASSES: dict[str, type[InnaEstimator]] = {"InnaClassifier": InnaClassifier, "InnaRegressor": InnaRegressor}
_ENCODER = "encoder."  # before the names of the encoder's tensors
_LABEL_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


class ModelFileError(ValueError):
    """A file is not a model that this version of inna-tune reads."""


def save(
    model: InnaEstimator,
    path: str | os.PathLike[str],
    *,
    extra: dict[str, Any] | None = None,
    schema: TableSchema | None = None,
) -> None:
    """Write a fitted model to one file.

    Parameters
    ----------
    model : InnaClassifier or InnaRegressor
        Fitted.
    path : path
        Replaced in one move if it exists, so that a reader never sees half a model.
    extra : dict, optional
        JSON-able notes to keep with the model; ``load`` puts them into ``extra_``.
    schema : TableSchema, optional
        How the table was written that the model was fitted on; ``inna-tune predict`` reads others in the same way. By default
        the model's own ``schema_``, by the types of the DataFrame it saw.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError
        If class labels are of a type other than str, int, float or bool.
    ValueError
        If the schema is of other columns than the model.
    """
    check_is_fitted(model, "weights_")
    if not isinstance(model.net_, TabularNet):
        raise TypeError(
            "a model of an own module is code, which a model file does not hold: keep it with joblib.dump, and load "
            "that file only where you trust it"
        )
    schema = model.schema_ if schema is None else schema
    if schema.names != model.schema_.names:
        raise ValueError(
            f"schema names the columns {schema.names[:10]}, and the model was fitted on {model.schema_.names[:10]}"
        )
    encoder, arrays = model.encoder_.to_plain()
    content = {
        "class": type(model).__name__,
        "parameters": _plain_parameters(model),
        "encoder": encoder,
        "schema": schema.to_plain(),
        "n_features_in": model.n_features_in_,
        "feature_names_in": list(model.feature_names_in_) if hasattr(model, "feature_names_in_") else None,
        "net": _plain_net(model.net_),
        "members": model.members_,
        "history": {name: column.tolist() for name, column in model.history_.items()},
        "target": _target_state(model),
        "extra": extra or {},
    }
    tensors = {"weights": model.weights_.detach().cpu().contiguous()}
    tensors |= {
        f"{_ENCODER}{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
    }
    plain = json.dumps(_plain(content), allow_nan=False)
    metadata = {
        "format": "inna-tune",
        "version": str(FORMAT_VERSION),
        "model": plain,
        "digest": digest(plain, tensors),
    }
    with replacing(path) as written:
        written.write_bytes(serialize(tensors, metadata=metadata))


def load(path: str | os.PathLike[str]) -> InnaClassifier | InnaRegressor:
    """Read a model that ``save`` wrote.

    Parameters
    ----------
    path : path
        The file. Nothing in it can run code: tensors are read by safetensors, the rest is JSON whose shape is checked.

    Returns
    -------
    InnaClassifier or InnaRegressor
        Fitted, on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is not a model, is damaged, or is of another format version.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_iris
    >>> from inna_tune import InnaClassifier, load
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> net = InnaClassifier(hidden_layer_sizes=(8,), max_epochs=5, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.save(Path(folder) / "iris.inna")
    ...     again = load(Path(folder) / "iris.inna")
    >>> bool((again.predict(X) == net.predict(X)).all())
    True
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such model file: {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is not a model file of inna-tune ({error}).") from error
    if metadata.get("format") != "inna-tune" or "weights" not in tensors:
        raise ModelFileError(f"{path} is not a model file of inna-tune.")
    version = str(metadata.get("version"))
    if version != str(FORMAT_VERSION):
        raise ModelFileError(
            f"{path} has model format {version!r}; this inna-tune reads format {FORMAT_VERSION}. "
            "Install the version of inna-tune that wrote it, or fit again."
        )
    try:
        # It tells damage, not malice: whoever rewrites a file can write its digest, too.
        if metadata["digest"] != digest(metadata["model"], tensors):
            raise ValueError("it was changed after it was written; take it from where it came once more")
        return _restore(json.loads(metadata["model"]), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error


def digest(plain: str, tensors: Tensors) -> str:
    """SHA-256 of a file's JSON and tensors."""
    found = hashlib.sha256(plain.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _restore(content: dict[str, Any], tensors: Tensors) -> InnaClassifier | InnaRegressor:
    weights = tensors["weights"]
    model: Any = _CLASSES[content["class"]]()
    parameters = dict(content["parameters"])
    parameters["hidden_layer_sizes"] = tuple(parameters["hidden_layer_sizes"])
    if "encoder" in parameters:
        parameters["encoder"] = TableEncoder().set_params(**parameters["encoder"])
    if isinstance(parameters.get("class_weight"), list):
        parameters["class_weight"] = {_label(k): float(v) for k, v in parameters["class_weight"]}
    name = str(parameters.get("optimizer", "inna"))
    if name.startswith("torch.optim."):
        # The check below refuses what is no optimizer.
        parameters["optimizer"] = getattr(torch.optim, name.removeprefix("torch.optim."), name)
    model.set_params(**parameters)
    # The device that it was trained on need not be here.
    model._check_parameters(to_train=False)
    model.net_ = _net(content["net"])
    size = sum(math.prod(shape) for shape in model.net_.parameter_shapes.values())
    if weights.ndim != 2 or weights.shape[1] != size or not weights.is_floating_point() or not len(weights):
        raise ValueError(f"weights of shape {list(weights.shape)} do not fit a net of {size} parameters")
    model.weights_ = weights
    arrays = {n.removeprefix(_ENCODER): t.numpy() for n, t in tensors.items() if n.startswith(_ENCODER)}
    model.encoder_ = TableEncoder.from_plain(content["encoder"], arrays)
    model.n_features_in_ = int(content["n_features_in"])
    if content["feature_names_in"] is not None:
        model.feature_names_in_ = np.array([str(n) for n in content["feature_names_in"]], dtype=object)
        model.encoder_.feature_names_in_ = model.feature_names_in_
    model.schema_ = TableSchema.from_plain(content["schema"])
    if len(model.schema_.columns) != model.n_features_in_:
        raise ValueError("the schema does not fit the encoder")
    if (
        len(model.encoder_.plan_) != model.n_features_in_
        or sum(model.encoder_.sections) != model.net_.in_features
        or (model.net_.n_numeric, model.net_.categories)
        not in [(model.encoder_.n_numeric_, model.encoder_.categories_), (0, ())]
    ):
        raise ValueError("the encoder does not fit the net")
    model.members_ = content["members"]
    # The file holds no velocity: who trains on begins at rest.
    model._states = [
        state_at_rest(
            own,
            int(m["epochs"]),
            {
                n: float("nan") if m.get(n) is None else float(m[n])
                for n in ("lr", "alpha", "beta", "curvature")
            },
        )
        for own, m in zip(weights, model.members_, strict=True)
    ]
    model.history_ = pd.DataFrame(content["history"]).astype({"train_loss": float, "validation_loss": float})
    model.best_epoch_ = max(m["best_epoch"] for m in model.members_)
    model.n_iter_ = max(m["epochs"] for m in model.members_)
    target = content["target"]
    if isinstance(model, InnaClassifier):
        if np.dtype(target["dtype"]).kind not in "biufUO":
            raise ValueError(f"its labels are of type {target['dtype']}")
        model.classes_ = np.array([_label(v) for v in target["classes"]], dtype=target["dtype"])
    elif isinstance(model, InnaRegressor):
        model.target_mean_ = np.array(target["mean"], dtype=np.float64)
        model.target_scale_ = np.array(target["scale"], dtype=np.float64)
        model._one_target = bool(target["one_target"])
    if model._out_features != model.net_.out_features:
        raise ValueError("the target does not fit the net")
    model.extra_ = content["extra"]
    restored: InnaClassifier | InnaRegressor = model
    return restored


def _target_state(model: InnaEstimator) -> dict[str, Any]:
    if isinstance(model, InnaClassifier):
        return {
            "classes": [_typed(v) for v in model.classes_.tolist()],
            "dtype": str(model.classes_.dtype),
        }
    if isinstance(model, InnaRegressor):
        return {
            "mean": model.target_mean_.tolist(),
            "scale": model.target_scale_.tolist(),
            "one_target": model._one_target,
        }
    raise TypeError(f"{type(model).__name__} cannot be saved; only InnaClassifier and InnaRegressor can.")


def _typed(label: Any) -> list[Any]:
    """A label with the name of its type, so that 1, 1.0, True and "1" stay apart."""
    for name, kind in _LABEL_TYPES.items():
        if type(label) is kind:
            return [name, label]
    raise TypeError(
        f"Class label {label!r} is of type {type(label).__name__}; only str, int, float and bool labels can be saved."
    )


def _label(typed: list[Any]) -> Any:
    name, value = typed
    return _LABEL_TYPES[name](value)


_NET_FIELDS = (
    "block",
    "activation",
    "numeric_embedding",
    "embedding_dim",
    "n_frequencies",
    "frequency_scale",
)


def _plain_net(net: TabularNet) -> dict[str, Any]:
    plain: dict[str, Any] = {name: getattr(net, name) for name in (*_NET_FIELDS, "n_numeric")}
    return plain | {
        "in_features": net.in_features,
        "hidden_layer_sizes": list(net.hidden_layer_sizes),
        "out_features": net.out_features,
        "categories": list(net.categories),
    }


def _net(plain: dict[str, Any]) -> TabularNet:
    return TabularNet(
        int(plain["in_features"]),
        tuple(int(h) for h in plain["hidden_layer_sizes"]),
        int(plain["out_features"]),
        n_numeric=int(plain["n_numeric"]),
        categories=tuple(int(n) for n in plain["categories"]),
        **{name: plain[name] for name in _NET_FIELDS},
    )


def _plain_parameters(model: InnaEstimator) -> dict[str, Any]:
    parameters = model.get_params(deep=False)
    parameters["hidden_layer_sizes"] = list(model._layer_sizes())
    # Absent where it is None, so that versions from before it was a parameter read the file.
    encoder = parameters.pop("encoder")
    if encoder is not None:
        parameters["encoder"] = encoder.get_params()
    if isinstance(parameters["optimizer"], type):
        name = parameters["optimizer"].__name__
        if getattr(torch.optim, name, None) is not parameters["optimizer"]:
            raise TypeError(
                f"optimizer={parameters['optimizer']!r} is not of torch.optim, and a model file holds no code: keep the "
                "model with joblib.dump, and load that file only where you trust it"
            )
        parameters["optimizer"] = f"torch.optim.{name}"
    parameters["device"] = str(parameters["device"])
    if not isinstance(parameters["random_state"], int | np.integer):
        parameters["random_state"] = None
    if isinstance(parameters.get("class_weight"), dict):
        items = parameters["class_weight"].items()
        parameters["class_weight"] = [
            [_typed(k.item() if isinstance(k, np.generic) else k), float(v)] for k, v in items
        ]
    return parameters


def _plain(value: Any) -> Any:
    """The same as JSON has it: numpy's scalars and arrays as Python's numbers and lists, None for what is not finite."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
