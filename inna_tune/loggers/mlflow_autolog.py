"""MLflow's autologging for scikit-learn, which knows scikit-learn's own classes alone, told of ours."""

import importlib
from typing import Any

import sklearn.utils
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.model_selection import RandomizedSearchCV


def autolog(**options: Any) -> None:
    """Do what ``mlflow.sklearn.autolog`` does for scikit-learn's estimators, and do it for ours, too.

    Each ``fit`` by itself is a run then, or goes into the active one: parameters, training metrics, dataset and model of
    InnaClassifier and InnaRegressor; of InnaSearchCV the best settings and their score as well, with a child run for each of
    the best trials. What an estimator or a search fits inside makes no run of its own.

    Parameters
    ----------
    **options
        Of ``mlflow.sklearn.autolog``, such as ``log_models`` or ``disable``. Models are kept by cloudpickle, whose loading runs
        code; ``log_models=False`` and `log_model` keep them without.

    Raises
    ------
    RuntimeError
        If this release of MLflow finds its estimators in another way.

    Notes
    -----
    Call it in place of ``mlflow.sklearn.autolog()``, which, called later, knows scikit-learn's classes alone again. Epochs are
    logged where the estimator has ``callbacks=[MLflowLogger()]``. From then on InnaSearchCV counts as a kind of
    ``RandomizedSearchCV`` (``isinstance``), by which MLflow tells a search.

    Examples
    --------
    >>> from inna_tune.loggers import autolog
    >>> autolog(log_models=False)  # doctest: +SKIP
    """
    import mlflow.sklearn

    ours = _estimators()
    for kind in ours:
        if issubclass(kind, MetaEstimatorMixin):
            RandomizedSearchCV.register(kind)
    before = [kind.fit for kind in ours]
    theirs = sklearn.utils.all_estimators
    sklearn.utils.all_estimators = lambda *args, **kwargs: [
        *theirs(*args, **kwargs),
        *((kind.__name__, kind) for kind in ours),
    ]
    try:
        mlflow.sklearn.autolog(**options)
    finally:
        sklearn.utils.all_estimators = theirs
    if not options.get("disable") and any(kind.fit is old for kind, old in zip(ours, before, strict=True)):
        raise RuntimeError(
            f"autolog: MLflow {mlflow.__version__} does not ask sklearn.utils.all_estimators for what it logs, which "
            "inna-tune's estimators are told it by; log epochs by callbacks=[MLflowLogger()] and models by log_model"
        )


def _estimators() -> list[Any]:
    """The estimators among the package's public names, the search too, which is of a room above."""
    package = importlib.import_module("inna_tune")
    named = [getattr(package, name) for name in package.__all__]
    return [each for each in named if isinstance(each, type) and issubclass(each, BaseEstimator)]
