"""Models in MLflow without a pickle: our own file in a folder of its pyfunc flavour, whose loader is this module.

MLflow's flavour for scikit-learn keeps models by skops, which has to be told to trust `inna_tune.estimators.SKOPS_TYPES`, or by
cloudpickle, which runs code.
"""

import tempfile
from pathlib import Path
from typing import Any

from inna_tune.estimators import load

_FILE = "model.inna"


def save_model(model: Any, path: Any, **options: Any) -> None:
    """Write a fitted model as a folder of MLflow, which ``mlflow.pyfunc.load_model`` reads.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
        Fitted, of no module of one's own.
    path : path
        Of the folder, which must not be there.
    **options
        Of ``mlflow.pyfunc.save_model``, such as ``signature``.
    """
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(path=str(path), **_arguments(model, folder), **options)


def log_model(model: Any, name: str = "model", **options: Any) -> Any:
    """Log a fitted model to MLflow's active run.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
        Fitted, of no module of one's own.
    name : str, default="model"
    **options
        Of ``mlflow.pyfunc.log_model``, such as ``registered_model_name`` or ``signature``.

    Returns
    -------
    mlflow.models.model.ModelInfo
        Whose ``model_uri`` ``mlflow.pyfunc.load_model`` takes. What that gives predicts labels, or values, of a DataFrame;
        its ``unwrap_python_model()`` or ``get_raw_model()`` is the estimator.
    """
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as folder:
        return mlflow.pyfunc.log_model(name=name, **_arguments(model, folder), **options)


def _arguments(model: Any, folder: str) -> dict[str, Any]:
    file = Path(folder) / _FILE
    model.save(file)
    return {"loader_module": __name__, "data_path": str(file), "pip_requirements": ["inna-tune"]}


class _Loaded:
    """What MLflow asks to predict; `get_raw_model` is the estimator."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, model_input: Any, params: Any = None) -> Any:
        """Labels, or values."""
        return self.model.predict(model_input)

    def get_raw_model(self) -> Any:
        """The estimator."""
        return self.model


def _load_pyfunc(path: str) -> _Loaded:
    """What MLflow calls to load a model; the name is its own."""
    given = Path(path)
    return _Loaded(load(given / _FILE if given.is_dir() else given))
