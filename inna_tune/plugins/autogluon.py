"""INNA as a model of AutoGluon's: ``TabularPredictor(…).fit(…, hyperparameters={InnaModel: {}})``."""

import os
import re
import time
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from autogluon.common import space
from autogluon.common.features.types import (
    R_BOOL,
    R_CATEGORY,
    R_FLOAT,
    R_INT,
    S_TEXT_AS_CATEGORY,
    S_TEXT_NGRAM,
)
from autogluon.core.constants import BINARY, MULTICLASS, REGRESSION
from autogluon.core.metrics import Scorer, compute_metric
from autogluon.core.models import AbstractModel
from autogluon.core.utils.exceptions import TimeLimitExceeded

from inna_tune.estimators import InnaClassifier, InnaRegressor, load
from inna_tune.plugins.few import FEW, with_few_nets
from inna_tune.plugins.ranges import ranges

_FILE = "model.inna"

# By these the best epoch is the one with the least loss, which is watched anyway.
_AS_THE_LOSS = {
    InnaClassifier: {"log_loss"},
    InnaRegressor: {"root_mean_squared_error", "mean_squared_error", "r2"},
}


class InnaModel(AbstractModel):  # type: ignore[misc]
    """A net trained by INNA, as AutoGluon trains, tunes, bags and stacks its models.

    ``TabularPredictor("y").fit(table, hyperparameters={InnaModel: {}})`` trains it; what the dict holds are parameters of
    InnaClassifier or InnaRegressor. It stops early by AutoGluon's validation rows and stopping metric, within its time limit
    and on its threads, takes sample weights, and is refitted on all rows for as many epochs as were best. Searches
    (``hyperparameter_tune_kwargs``) are over ``step_ratio``, ``friction`` and ``damping``, which mean the same on every table,
    ``dropout`` and ``weight_decay``, where the dict says nothing else. In the folder of a model AutoGluon pickles its own
    bookkeeping; the net is in ``model.inna``, whose loading runs no code.

    Where the dict has no ``n_members``, a fit by itself and a refit on all rows train as many nets as the estimators do by
    default, up to eight on few rows. A fold of a bag and a setting that is tried in a search train two ("few"), for as many
    epochs: a bag of eight folds is one of 16 nets already.

    Parameters
    ----------
    **kwargs
        As of `autogluon.core.models.AbstractModel`.

    Notes
    -----
    What it can't do (quantiles, soft classes) AutoGluon says, and leaves it out; multi-label targets and ranking AutoGluon does
    not do itself.
    """

    model: Any

    ag_key: ClassVar[str] = "INNA"
    ag_name: ClassVar[str] = "INNA"
    ag_priority: ClassVar[int] = 50
    seed_name: ClassVar[str] = "random_state"
    _supported_problem_types: ClassVar[list[str]] = [BINARY, MULTICLASS, REGRESSION]
    _default_auxiliary_params_extra: ClassVar[dict[str, Any]] = {
        "problem_types": _supported_problem_types,
        "valid_raw_types": [R_BOOL, R_INT, R_FLOAT, R_CATEGORY],
        # Texts come as categories or counts of words, too; these have as many columns as there are words.
        "ignored_type_group_special": [S_TEXT_NGRAM, S_TEXT_AS_CATEGORY],
    }
    default_resources_physical_cores_only: ClassVar[bool] = True

    def _validate_params(self) -> None:
        """Refuse what the estimators do not know, before anything is trained."""
        given = {n: v.default if isinstance(v, space.Space) else v for n, v in self.params.items()}
        given.pop(self.seed_name, None)
        if given.get("n_members") == FEW:
            del given["n_members"]
        known = _kind(self.problem_type)().get_params(deep=True)
        if unknown := sorted(
            n for n in given if n not in known and not n.startswith(("encoder__", "optimizer__"))
        ):
            raise ValueError(
                f"hyperparameters={{InnaModel: …}}: {_kind(self.problem_type).__name__} has no parameter {unknown}; it has "
                f"{', '.join(sorted(known))}"
            )
        _estimator(self.problem_type, given)._check_parameters()

    def _get_default_searchspace(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: space.Real(
                entry.distribution.low,
                entry.distribution.high,
                default=entry.default,
                log=entry.distribution.log,
            )
            for name, entry in ranges(_kind(self.problem_type), self.nondefault_params).items()
        }
        # What is no range is the same in every trial; AutoGluon drops it where a person has set it.
        return found | {"n_members": FEW}

    def _fit(
        self,
        X: pd.DataFrame,
        y: pd.Series,
        X_val: pd.DataFrame | None = None,
        y_val: pd.Series | None = None,
        time_limit: float | None = None,
        sample_weight: Any = None,
        sample_weight_val: Any = None,
        num_cpus: int = 1,
        num_gpus: float = 0,
        **kwargs: Any,
    ) -> None:
        began = time.time()
        X = self.preprocess(X, y=y, is_train=True)
        settings: dict[str, Any] = {
            "n_jobs": max(1, int(num_cpus)),
            "device": "cuda" if num_gpus else "cpu",
            "eval_metric": self._own_metric(),
        }
        settings |= self._get_model_params()
        settings.setdefault("n_members", self._usual_nets(X_val))
        is_few = settings["n_members"] == FEW
        model = _estimator(self.problem_type, settings, n_rows=len(X))
        validation: dict[str, Any] = {}
        if X_val is not None and y_val is not None and model.early_stopping:
            validation = self._validation(X_val, y_val, sample_weight_val, set(np.unique(y)))
        if time_limit is not None:
            left = time_limit - (time.time() - began)
            if left <= 0:
                raise TimeLimitExceeded
            model.set_params(max_time=min(left, model.max_time or left))
        model.fit(X, y, sample_weight=sample_weight, **validation)
        # Refitted on all rows it trains as long as was best here, with none left to stop by.
        self.params_trained["max_epochs"] = int(model.best_epoch_)
        self.params_trained["early_stopping"] = False
        if is_few:
            # A bag is refitted as one model, and so is a trial.
            self.params_trained["n_members"] = "auto"
        self.model = model

    def _usual_nets(self, X_val: pd.DataFrame | None) -> str:
        """As many nets as are trained where nobody says how many; the model that a bag makes its folds of has no name."""
        is_fold = _is_fold(self.name) and X_val is not None
        return FEW if is_fold or not self.name else "auto"

    def _own_metric(self) -> "StoppingMetric | None":
        if self.stopping_metric.name in _AS_THE_LOSS[_kind(self.problem_type)]:
            return None
        return StoppingMetric(self.stopping_metric, self.problem_type)

    def _validation(self, X_val: Any, y_val: Any, weight: Any, classes: set[Any]) -> dict[str, Any]:
        """The rows to stop by, those left out whose class no training row has; nothing, if none is left."""
        if self.problem_type != REGRESSION and not (known := np.isin(np.asarray(y_val), list(classes))).all():
            X_val, y_val = X_val[known], y_val[known]
            weight = None if weight is None else np.asarray(weight)[known]
        if not len(y_val):
            return {}
        return {"X_val": self.preprocess(X_val), "y_val": y_val, "sample_weight_val": weight}

    def _predict_proba(self, X: pd.DataFrame, **kwargs: Any) -> npt.NDArray[np.float64]:
        X = self.preprocess(X, **kwargs)
        if self.problem_type == REGRESSION:
            return np.asarray(self.model.predict(X))
        found = np.asarray(self.model.predict_proba(X))
        if self.problem_type == MULTICLASS and found.shape[1] < self.num_classes:
            # A fold may lack a rare class, and AutoGluon numbers them all.
            all_of_them = np.zeros((len(found), self.num_classes))
            all_of_them[:, self.model.classes_] = found
            found = all_of_them
        return np.asarray(self._convert_proba_to_unified_form(found))

    # ------------------------------------------------------------------ what AutoGluon plans by

    def _estimate_memory_usage(
        self, X: pd.DataFrame, y: pd.Series | None = None, X_val: pd.DataFrame | None = None, **kwargs: Any
    ) -> int:
        return int(
            self.estimate_memory_usage_static(
                X=X,
                y=y,
                hyperparameters={"n_members": self._usual_nets(X_val)} | self._get_model_params(),
                problem_type=self.problem_type,
                num_classes=self.num_classes,
            )
        )

    @classmethod
    def _estimate_memory_usage_static(
        cls,
        *,
        X: pd.DataFrame,
        y: pd.Series | None = None,
        hyperparameters: dict[str, Any] | None = None,
        problem_type: str,
        **kwargs: Any,
    ) -> int:
        return _estimator(problem_type, hyperparameters or {}, n_rows=len(X)).estimate_memory(X, y)

    @classmethod
    def _get_default_ag_args(cls) -> dict[str, Any]:
        # By default AutoGluon leaves a model out without a word where the problem is of another type; by its constraint
        # "problem_types" above it says so.
        return {}

    @classmethod
    def _class_tags(cls) -> dict[str, Any]:
        return {"reset_torch_threads": True}

    def _more_tags(self) -> dict[str, Any]:
        return {"can_refit_full": True}

    # ------------------------------------------------------------------ saving

    def save(self, path: str | None = None, verbose: bool = True) -> str:
        """Write AutoGluon's bookkeeping, and the net beside it in inna-tune's own format.

        Parameters
        ----------
        path : str, optional
            Folder.
        verbose : bool
        """
        folder = self.path if path is None else path
        model, self.model = self.model, None
        try:
            super().save(path=folder, verbose=verbose)
        finally:
            self.model = model
        if model is not None:
            model.save(os.path.join(folder, _FILE))
        return folder

    @classmethod
    def load(cls, path: str, reset_paths: bool = True, verbose: bool = True) -> "InnaModel":
        """Read what `save` wrote.

        Parameters
        ----------
        path : str
            Folder.
        reset_paths, verbose : bool
        """
        model: InnaModel = super().load(path=path, reset_paths=reset_paths, verbose=verbose)
        if os.path.exists(file := os.path.join(path, _FILE)):
            model.model = load(file)
        return model


class StoppingMetric:
    """A metric of AutoGluon's as the estimators' ``eval_metric``: a function of (estimator, X, y), the greater the better.

    Parameters
    ----------
    metric : autogluon.core.metrics.Scorer
    problem_type : str
    """

    def __init__(self, metric: Scorer, problem_type: str) -> None:
        self.metric, self.problem_type = metric, problem_type

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        probabilities = None
        if self.metric.needs_proba or self.metric.needs_threshold:
            probabilities = estimator.predict_proba(X)
            probabilities = probabilities[:, 1] if self.problem_type == BINARY else probabilities
        return float(
            compute_metric(
                y=np.asarray(y),
                metric=self.metric,
                y_pred=estimator.predict(X),
                y_pred_proba=probabilities,
                weights=sample_weight,
                silent=True,
            )
        )

    def __repr__(self) -> str:
        return f"AutoGluon's {self.metric.name}"


def _kind(problem_type: str) -> type[InnaClassifier] | type[InnaRegressor]:
    # Of what it can't do AutoGluon asks the memory, too, before it says so.
    return InnaClassifier if problem_type in (BINARY, MULTICLASS) else InnaRegressor


def _is_fold(name: str) -> bool:
    """Whether a model is a fold of a bag: AutoGluon names the third of the first round "S1F3", and tells it nothing else."""
    return re.fullmatch(r"S\d+F\d+", os.path.basename(name)) is not None


def _estimator(
    problem_type: str, settings: dict[str, Any], *, n_rows: int = 0
) -> InnaClassifier | InnaRegressor:
    found = _kind(problem_type)()
    if settings.get("n_members") != FEW:
        return found.set_params(**settings)
    return with_few_nets(found.set_params(**settings | {"n_members": "auto"}), n_rows)
