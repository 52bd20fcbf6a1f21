"""Models in one file: tensors by safetensors, everything else as JSON in its header. Loading runs no code."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from sklearn.utils.validation import check_is_fitted

from inna_tune.engine import ordinary_tensors, state_at_rest
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.estimators.schema import TableSchema
from inna_tune.files import replacing
from inna_tune.nets import TabularNet
from inna_tune.optim.optimizers import PURE
from inna_tune.strangers_json import loads

if TYPE_CHECKING:
    from inna_tune.estimators.base import InnaEstimator
    from inna_tune.estimators.classifier import InnaClassifier
    from inna_tune.estimators.ensemble import EnsembleClassifier, EnsembleRegressor
    from inna_tune.estimators.regressor import InnaRegressor

Tensors = dict[str, torch.Tensor]

# Of the file, of one model and of an ensemble. Anything else is refused: who needs it takes the inna-tune that wrote it.
FORMAT_VERSION, ENSEMBLE_VERSION = 4, 5

# The classes that a file may name: those that are defined in this process.
_CLASSES: dict[str, "type[SavedMixin]"] = {}
_TORCH = "torch.optim."
# The header of safetensors ends at 100 MB, and categories may be whole documents: beyond this the JSON is a tensor.
_MOST_IN_HEADER, _CONTENT = 40_000_000, "model"
ENCODER = "encoder."  # before the names of the encoder's tensors
_LABEL_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}

# What a file holds of parameters that may be things which it cannot hold.
_PLAIN: dict[str, Any] = {"random_state": int | np.integer, "eval_metric": str}

# Parameters that came after the first model files.
_LATER = frozenset({"encoder", *PURE, "eval_metric", "n_jobs", "callbacks", "quantiles"})


class ModelFileError(ValueError):
    """A file is not a model that this version of inna-tune reads."""


class SavedMixin:
    """What a model file holds. A class enters by the name that files have for it, and the last of a name counts.

    A base, ``in_files=False``, is none that a file may name.
    """

    schema_: TableSchema
    extra_: dict[str, Any]

    def __init_subclass__(cls, *, in_files: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if in_files:
            _CLASSES[name_of(cls)] = cls

    def save(self, path: Any) -> None:
        """Write the fitted model to one file; ``inna_tune.load`` reads it back.

        Parameters
        ----------
        path : path
            Where to; an existing file is replaced.
        """
        save(self, path)

    def _to_file(self) -> tuple[dict[str, Any], Tensors]:
        """The fitted model as JSON-able data and tensors, without its schema."""
        raise NotImplementedError

    def _from_file(self, content: dict[str, Any], tensors: Tensors) -> None:
        """Become what ``_to_file`` gave and a schema; an error says that it makes no sense."""
        raise NotImplementedError


def class_of(name: str) -> type[SavedMixin] | None:
    """The class that model files have a name for; None where this process knows none."""
    return _CLASSES.get(name)


def name_of(kind: type) -> str:
    """This package's classes by their bare names; a person's own with their module, so that none stands for one of ours."""
    own = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return kind.__name__ if own else f"{kind.__module__}.{kind.__qualname__}"


def save(
    model: SavedMixin,
    path: str | os.PathLike[str],
    *,
    extra: dict[str, Any] | None = None,
    schema: TableSchema | None = None,
) -> None:
    """Write a fitted model to one file.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
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
    content, tensors = model._to_file()
    schema = model.schema_ if schema is None else schema
    if schema.names != model.schema_.names:
        raise ValueError(
            f"schema names the columns {schema.names[:10]}, and the model was fitted on {model.schema_.names[:10]}"
        )
    content |= {"schema": schema.to_plain(), "extra": extra or {}}
    plain = json.dumps(_plain(content), allow_nan=False)
    metadata = {
        "format": "inna-tune",
        "version": str(FORMAT_VERSION if "net" in content else ENSEMBLE_VERSION),
        "model": plain,
        "digest": digest(plain, tensors),
    }
    if len(plain) > _MOST_IN_HEADER:
        metadata["model"] = ""
        tensors = tensors | {_CONTENT: torch.frombuffer(bytearray(plain.encode()), dtype=torch.uint8)}
    with replacing(path) as written:
        written.write_bytes(serialize(tensors, metadata=metadata))


def to_plain(model: "InnaEstimator") -> tuple[dict[str, Any], Tensors]:
    """A fitted model as JSON-able data and tensors, without its schema.

    Raises
    ------
    TypeError
        If it is of an own module, or a class label is of a type that a file can't hold.
    """
    if not isinstance(model.net_, TabularNet):
        raise TypeError(
            "a model of an own module is code, which a model file does not hold: keep it with joblib.dump, and load "
            "that file only where you trust it"
        )
    encoder, arrays = model.encoder_.to_plain()
    content = {
        "class": name_of(type(model)),
        "parameters": plain_parameters(model),
        "encoder": encoder,
        "n_features_in": model.n_features_in_,
        "feature_names_in": list(model.feature_names_in_) if hasattr(model, "feature_names_in_") else None,
        "net": _plain_net(model.net_),
        "members": model.members_,
        "history": {name: column.tolist() for name, column in model.history_.items()},
        "target": model._target_to_plain(),
    }
    tensors = {"weights": model.weights_.detach().cpu().contiguous()}
    tensors |= {
        f"{ENCODER}{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
    }
    return content, tensors


@ordinary_tensors()
def load(
    path: str | os.PathLike[str],
) -> "InnaClassifier | InnaRegressor | EnsembleClassifier | EnsembleRegressor":
    """Read a model that ``save`` wrote.

    Parameters
    ----------
    path : path
        The file. Nothing in it can run code: tensors are read by safetensors, the rest is JSON whose shape is checked.

    Returns
    -------
    InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
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
    if version not in (str(FORMAT_VERSION), str(ENSEMBLE_VERSION)):
        raise ModelFileError(
            f"{path} has model format {version!r}; this inna-tune reads format {FORMAT_VERSION}, and "
            f"{ENSEMBLE_VERSION} of ensembles. "
            "Install the version of inna-tune that wrote it, or fit again."
        )
    try:
        # It tells damage, not malice: whoever rewrites a file can write its digest, too.
        plain = tensors.pop(_CONTENT).numpy().tobytes().decode() if _CONTENT in tensors else metadata["model"]
        if metadata["digest"] != digest(plain, tensors):
            raise ValueError("it was changed after it was written; take it from where it came once more")
        content = loads(plain)
        kind = class_of(name := str(content["class"]))
        model: Any = None if kind is None else kind()
        if model is not None:
            model._from_file(content, tensors)
            model.extra_ = content["extra"]
    except Exception as error:  # whatever is in the file
        raise ModelFileError(f"{path} is damaged: {error}") from error
    if model is None:
        raise ModelFileError(
            f"{path} holds a model of the class {name}, which this process does not know. If that is a class of your own, "
            "import the module that defines it first: loading a file imports none."
        )
    return model  # type: ignore[no-any-return]


def digest(plain: str, tensors: Tensors) -> str:
    """SHA-256 of a file's JSON and tensors."""
    found = hashlib.sha256(plain.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def restore(model: Any, content: dict[str, Any], tensors: Tensors) -> None:
    """Make a model of what `to_plain` gave and a schema; an error says that it makes no sense."""
    weights = tensors["weights"]
    model.set_params(**restored_parameters(content["parameters"]))
    # The device that it was trained on need not be here.
    model._check_parameters(to_train=False)
    model.net_ = _net(content["net"])
    size = sum(math.prod(shape) for shape in model.net_.parameter_shapes.values())
    if weights.ndim != 2 or weights.shape[1] != size or not weights.is_floating_point() or not len(weights):
        raise ValueError(f"weights of shape {list(weights.shape)} do not fit a net of {size} parameters")
    if not weights.isfinite().all():
        raise ValueError("some of its weights are no finite numbers")
    model.weights_ = weights
    arrays = {n.removeprefix(ENCODER): t.numpy() for n, t in tensors.items() if n.startswith(ENCODER)}
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
    steps = [
        {n: math.nan if m.get(n) is None else float(m[n]) for n in ("lr", "alpha", "beta", "curvature")}
        for m in model.members_
    ]
    model._states = [
        state_at_rest(own, int(m["epochs"]), step, _factors(m.get("step_factors"), model.net_))
        for own, m, step in zip(weights, model.members_, steps, strict=True)
    ]
    model.history_ = pd.DataFrame(content["history"]).astype({"train_loss": float, "validation_loss": float})
    model._count_epochs()
    model._restore_target(content["target"])
    if model._out_features != model.net_.out_features:
        raise ValueError("the target does not fit the net")


def typed(label: Any) -> list[Any]:
    """A label with the name of its type, so that 1, 1.0, True and "1" stay apart."""
    for name, kind in _LABEL_TYPES.items():
        if type(label) is kind:
            return [name, label]
    raise TypeError(
        f"Class label {label!r} is of type {type(label).__name__}; only str, int, float and bool labels can be saved."
    )


def untyped(label: list[Any]) -> Any:
    """The label that ``typed`` gave."""
    name, value = label
    return _LABEL_TYPES[name](value)


def _plain_net(net: TabularNet) -> dict[str, Any]:
    return {f.name: getattr(net, f.name) for f in fields(net)}


def _net(plain: Mapping[str, Any]) -> TabularNet:
    settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in plain.items()}
    return TabularNet(**settings)


def plain_parameters(model: "InnaEstimator") -> dict[str, Any]:
    """A model's parameters as JSON-able data."""
    plain: dict[str, Any] = {}
    for name, value in model.get_params(deep=False).items():
        if isinstance(value, TableEncoder):
            value = value.get_params()
        elif name == "hidden_layer_sizes":
            value = list(model._layer_sizes())
        elif name == "optimizer" and isinstance(value, type):
            value = _optimizer_name(value)
        elif name == "device":
            value = str(value)
        elif name == "callbacks":
            value = None  # code, and who watched a fit is no part of what it brought
        elif name in _PLAIN and not isinstance(value, _PLAIN[name]):
            value = None
        elif name == "class_weight" and isinstance(value, dict):
            labels = [key.item() if isinstance(key, np.generic) else key for key in value]
            value = [[typed(k), float(v)] for k, v in zip(labels, value.values(), strict=True)]
        plain[name] = value
    # Absent where it is None, so that versions from before it was a parameter read the file.
    return {name: value for name, value in plain.items() if name not in _LATER or value is not None}


def _optimizer_name(kind: type) -> str:
    if getattr(torch.optim, kind.__name__, None) is not kind:
        raise TypeError(
            f"optimizer={kind!r} is not of torch.optim, and a model file holds no code: keep the model with joblib.dump, and "
            "load that file only where you trust it"
        )
    return f"{_TORCH}{kind.__name__}"


def _factors(plain: Any, net: TabularNet) -> dict[str, float]:
    """Factors of the steps of a member's tensors; files of older versions have none."""
    factors = {} if plain is None else {str(name): float(value) for name, value in plain.items()}
    if not set(factors) <= set(net.scaled) or not all(0 < value < math.inf for value in factors.values()):
        raise ValueError(f"factors of steps {str(plain)[:80]} do not fit the net")
    return factors


def restored_parameters(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What `plain_parameters` gave, as parameters; that they make sense is checked once they are set."""
    parameters = dict(plain)
    for name, value in plain.items():
        if name == "hidden_layer_sizes":
            parameters[name] = tuple(value)
        elif name == "encoder":
            parameters[name] = TableEncoder().set_params(**value)
        elif name == "class_weight" and isinstance(value, list):
            parameters[name] = {untyped(k): float(v) for k, v in value}
        elif name == "optimizer" and str(value).startswith(_TORCH):
            parameters[name] = getattr(torch.optim, value.removeprefix(_TORCH), value)
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
