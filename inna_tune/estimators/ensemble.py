"""Several fitted nets as one estimator: what they predict is averaged by weights."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.classifier import InnaClassifier
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.estimators.frames import as_frame, takes_any_table
from inna_tune.estimators.interruption import interrupts_end_all
from inna_tune.estimators.labelling import LabellingMixin
from inna_tune.estimators.predicting import PredictingMixin
from inna_tune.estimators.recalibration import factors_of, scaled
from inna_tune.estimators.regressor import InnaRegressor, quantiles_of, restored_factors
from inna_tune.estimators.saving import (
    ENCODER,
    SavedMixin,
    Tensors,
    class_of,
    name_of,
    plain_parameters,
    restored_parameters,
    typed,
    untyped,
)
from inna_tune.estimators.splitting import draw_seeds

Floats = npt.NDArray[np.float64]


class Ensemble(SavedMixin, BaseEstimator, in_files=False):  # type: ignore[misc]
    """Base of EnsembleClassifier and EnsembleRegressor; they say what is averaged."""

    models_: list[Any]
    weights_: Floats
    _kind: type[InnaEstimator]

    def __init__(
        self,
        estimators: Sequence[InnaEstimator] = (),
        *,
        weights: Sequence[float] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimators = estimators
        self.weights = weights
        self.random_state = random_state

    def _check_parameters(self) -> Floats:
        """The estimators' weights, which sum to one.

        Raises
        ------
        TypeError, ValueError
            With the parameter, its value and the remedy.
        """
        if not isinstance(self.estimators, Sequence) or not self.estimators:
            raise TypeError(
                f"estimators={self.estimators!r} must be a sequence of one {self._kind.__name__} or more."
            )
        for estimator in self.estimators:
            if not isinstance(estimator, self._kind):
                raise TypeError(f"estimators: {estimator!r} must be an {self._kind.__name__}.")
            estimator._check_parameters(to_train=False)
        given = (
            np.ones(len(self.estimators)) if self.weights is None else np.asarray(self.weights, np.float64)
        )
        return _shares(given, len(self.estimators))

    # ------------------------------------------------------------------ fit

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit a clone of every estimator on the table.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]
        y : array of shape [n_samples]
        sample_weight : array of shape [n_samples], optional

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If a parameter or the table makes no sense.
        """
        weights = self._check_parameters()
        seeds = None if self.random_state is None else draw_seeds(self.random_state, len(self.estimators))
        models = []
        for i, estimator in enumerate(self.estimators):
            model = clone(estimator)
            if seeds is not None:
                model.set_params(random_state=seeds[i])
            with interrupts_end_all():
                models.append(model.fit(X, y, sample_weight=sample_weight))
        return self._take(models, weights, models[0])

    def _take(self, models: Sequence[InnaEstimator], weights: Floats, read: Any) -> Self:
        """Become what is fitted by models with weights; what the whole table was is read off from one that saw it."""
        self.models_, self.weights_ = list(models), _shares(np.asarray(weights, np.float64), len(models))
        self.n_features_in_, self.schema_ = read.n_features_in_, read.schema_
        if hasattr(read, "feature_names_in_"):
            self.feature_names_in_ = read.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    @property
    def members_(self) -> list[dict[str, Any]]:
        """Settings used and outcome of every net."""
        return [member for model in self.models_ for member in model.members_]

    # ------------------------------------------------------------------ predict

    def _average(self, X: Any, of: str = "_from_outputs") -> Floats:
        """The weighted mean of what the models predict, or make of their outputs by another method."""
        found: Any = 0.0
        for i, outputs in self._outputs_by_model(X):
            model = self.models_[i]
            found = found + self.weights_[i] * self._known(model, getattr(model, of)(outputs))
        return np.asarray(found, dtype=np.float64)

    def _outputs_by_model(self, X: Any) -> Iterator[tuple[int, Floats]]:
        """Each model's place, and the outputs of its members for a table, [P, n_samples, out]."""
        check_is_fitted(self, "weights_")
        frame = as_frame(self, X, reset=False)
        for alike in self._by_encoding():
            first = self.models_[alike[0]]
            encoded = first.encoder_.encode(frame, first._dtype)
            for i in alike:
                yield i, self.models_[i]._outputs_of(encoded)

    def _by_encoding(self) -> Iterator[list[int]]:
        """Places of models that share an encoder and its numbers' type, so that a table is encoded once for them."""
        alike: dict[Any, list[int]] = {}
        for i, model in enumerate(self.models_):
            alike.setdefault((id(model.encoder_), model._dtype), []).append(i)
        yield from alike.values()

    def _known(self, model: Any, predicted: Floats) -> Floats:
        """What a model predicts, as all are averaged."""
        return predicted

    # ------------------------------------------------------------------ files

    def _fits(self, model: Any, first: Any) -> bool:
        """Whether what a model predicts can be averaged with what the first does."""
        return bool(model._out_features == first._out_features)

    def _target_to_plain(self) -> dict[str, Any]:
        return {}

    def _restore_target(self, plain: dict[str, Any]) -> None:
        pass

    def _to_file(self) -> tuple[dict[str, Any], Tensors]:
        encoders: dict[int, int] = {}
        models: list[dict[str, Any]] = []
        tensors: Tensors = {"weights": torch.from_numpy(self.weights_)}
        written: list[Any] = []
        for i, model in enumerate(self.models_):
            content, own = model._to_file()
            place = encoders.setdefault(id(model.encoder_), len(encoders))
            encoder = content.pop("encoder")
            if place == len(written):
                written.append(encoder)
                tensors |= {f"{place}.{name}": t for name, t in own.items() if name.startswith(ENCODER)}
            tensors[f"{i}.weights"] = own["weights"].clone()  # a file holds no tensor twice
            models.append(content | {"encoder": place})
        content = {
            "class": name_of(type(self)),
            "estimators": [[name_of(type(e)), plain_parameters(e)] for e in self.estimators],
            "parameter_weights": None if self.weights is None else [float(w) for w in self.weights],
            "random_state": int(self.random_state)
            if isinstance(self.random_state, int | np.integer)
            else None,
            "models": models,
            "encoders": written,
            "n_features_in": self.n_features_in_,
            "feature_names_in": list(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None,
            "target": self._target_to_plain(),
        }
        return content, tensors

    def _from_file(self, content: dict[str, Any], tensors: Tensors) -> None:
        estimators = []
        for name, parameters in content["estimators"]:
            estimator = self._own_class(name)()
            estimator.set_params(**restored_parameters(parameters))
            estimators.append(estimator)
        self.set_params(
            estimators=estimators,
            weights=content["parameter_weights"],
            random_state=content["random_state"],
        )
        self._check_parameters()
        # The device that they were trained on need not be here.
        models: list[InnaEstimator] = []
        encoders: dict[int, TableEncoder] = {}
        for i, own in enumerate(content["models"]):
            place = int(own["encoder"])
            arrays = {
                n.removeprefix(f"{place}."): t
                for n, t in tensors.items()
                if n.startswith(f"{place}.{ENCODER}")
            }
            model = self._own_class(own["class"])()
            of_table = {name: content[name] for name in ("schema", "n_features_in", "feature_names_in")}
            model._from_file(
                own | {"encoder": content["encoders"][place]} | of_table,
                arrays | {"weights": tensors[f"{i}.weights"]},
            )
            model.encoder_ = encoders.setdefault(place, model.encoder_)
            models.append(model)
        weights = tensors["weights"].numpy()
        if (
            weights.dtype != np.float64
            or weights.shape != (len(models),)
            or not math.isclose(weights.sum(), 1.0)
        ):
            raise ValueError(f"its weights of shape {list(weights.shape)} do not fit {len(models)} models")
        self._restore_target(content["target"])
        if not all(self._fits(model, models[0]) for model in models):
            raise ValueError("its models do not fit together")
        self.models_, self.weights_ = models, weights
        self.n_features_in_, self.schema_ = models[0].n_features_in_, models[0].schema_
        if hasattr(models[0], "feature_names_in_"):
            self.feature_names_in_ = models[0].feature_names_in_

    def _own_class(self, name: Any) -> type[InnaEstimator]:
        found = class_of(str(name))
        if not (isinstance(found, type) and issubclass(found, self._kind)):
            raise ValueError(
                f"it holds a model of the class {name}, which is no {self._kind.__name__} that this process knows"
            )
        return found

    def __sklearn_tags__(self) -> Any:
        return takes_any_table(super().__sklearn_tags__())


class EnsembleClassifier(LabellingMixin, Ensemble):
    """Classifiers whose probabilities are averaged by weights.

    `InnaSearchCV` with ``refit="ensemble"`` gives one that holds the nets of its folds; ``fit`` trains one net a setting, on
    all rows.

    Parameters
    ----------
    estimators : sequence of InnaClassifier
        Not fitted; a search's are the settings of the trials that it chose.
    weights : sequence of float, optional
        One an estimator, at least 0; only their ratios matter. None: all alike.
    random_state : int, RandomState, Generator or None, default=None
        Root of the seeds that ``fit`` gives the estimators; None: each has its own.

    Attributes
    ----------
    models_ : list of InnaClassifier
        Fitted.
    weights_ : ndarray of shape [n_models]
        Theirs, which sum to one.
    classes_ : ndarray of shape [n_classes]
        Of all of them; one that a model was not trained on has no probability by it.
    members_ : list of dict
        As of every model.
    schema_, n_features_in_, feature_names_in_
        As in :class:`InnaClassifier`.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble Selection from Libraries of Models. ICML 2004.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from inna_tune import InnaClassifier
    >>> from inna_tune.estimators import EnsembleClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> nets = [InnaClassifier(hidden_layer_sizes=(width,), max_epochs=20) for width in (8, 16)]
    >>> model = EnsembleClassifier(nets, weights=[1, 3], random_state=0).fit(X, y)
    >>> model.weights_.tolist()
    [0.25, 0.75]
    """

    _kind = InnaClassifier

    def _take(self, models: Sequence[InnaEstimator], weights: Floats, read: Any) -> Self:
        self.classes_ = read.classes_
        return super()._take(models, weights, read)

    def _known(self, model: Any, predicted: Floats) -> Floats:
        if len(model.classes_) == len(self.classes_):
            return predicted
        found = np.zeros((len(predicted), len(self.classes_)))
        found[:, np.searchsorted(self.classes_, model.classes_)] = predicted
        return found

    def _fits(self, model: Any, first: Any) -> bool:
        return bool(np.isin(model.classes_, self.classes_).all())

    def _target_to_plain(self) -> dict[str, Any]:
        return {"classes": [typed(v) for v in self.classes_.tolist()], "dtype": str(self.classes_.dtype)}

    def _restore_target(self, plain: dict[str, Any]) -> None:
        if np.dtype(plain["dtype"]).kind not in "biufUO":
            raise ValueError(f"its labels are of type {plain['dtype']}")
        self.classes_ = np.array([untyped(v) for v in plain["classes"]], dtype=plain["dtype"])

    def predict_proba(self, X: Any) -> Floats:
        """Probability of every class.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]

        Returns
        -------
        ndarray of shape [n_samples, n_classes], columns in the order of ``classes_``.
        """
        return self._average(X)


class EnsembleRegressor(PredictingMixin, Ensemble):
    """Regressors whose predictions are averaged by weights.

    Parameters
    ----------
    estimators : sequence of InnaRegressor
        Not fitted.
    weights, random_state
        As in :class:`EnsembleClassifier`.

    Attributes
    ----------
    models_ : list of InnaRegressor
        Fitted.
    weights_, members_, schema_, n_features_in_, feature_names_in_
        As in :class:`EnsembleClassifier`.
    quantile_factors_ : ndarray of shape [n_quantiles]
        By which the mean quantiles' distances from the median are scaled; only of models with ``quantiles``.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble Selection from Libraries of Models. ICML 2004.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from inna_tune import InnaRegressor
    >>> from inna_tune.estimators import EnsembleRegressor
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> nets = [InnaRegressor(hidden_layer_sizes=(width,), max_epochs=20) for width in (8, 16)]
    >>> bool(EnsembleRegressor(nets, random_state=0).fit(X, y).score(X, y) > 0.3)
    True
    """

    _kind = InnaRegressor
    quantile_factors_: Floats

    def _take(self, models: Sequence[InnaEstimator], weights: Floats, read: Any) -> Self:
        super()._take(models, weights, read)
        self._set_factors(None)
        return self

    def _set_factors(self, plain: Any) -> None:
        """Take factors of quantiles, where the models have such; without any they are ones."""
        shares = self._quantiles
        if shares:
            self.quantile_factors_ = restored_factors(plain, len(shares))
        elif hasattr(self, "quantile_factors_"):
            del self.quantile_factors_

    @property
    def _quantiles(self) -> tuple[float, ...]:
        """What all models tell; nothing, where these are different."""
        told = {quantiles_of(model.quantiles or ()) if model.quantiles else () for model in self.models_}
        return told.pop() if len(told) == 1 else ()

    def _from_file(self, content: dict[str, Any], tensors: Tensors) -> None:
        super()._from_file(content, tensors)
        self._set_factors(content["target"].get("quantile_factors"))

    def _learn_from_left_out(self, found: Floats, target: Floats, weight: Floats | None) -> None:
        """Learn factors by the models' mean quantiles [n_samples, n_quantiles] of rows that they were not trained on."""
        self.quantile_factors_ = factors_of(found, self._quantiles, target, weight)

    def _target_to_plain(self) -> dict[str, Any]:
        factors = getattr(self, "quantile_factors_", None)
        return {} if factors is None else {"quantile_factors": factors.tolist()}

    def predict(self, X: Any) -> Floats:
        """Predicted values; of models with ``quantiles`` the mean of their medians.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]

        Returns
        -------
        ndarray of shape [n_samples], or [n_samples, n_targets] if fitted to several targets.
        """
        return self._average(X)

    def predict_quantiles(self, X: Any) -> Floats:
        """Predicted quantiles of the target, given each row: the weighted mean of the models' (Vincent, 1912).

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]

        Returns
        -------
        ndarray of shape [n_samples, n_quantiles]
            In the order of ``quantiles``; no row's cross. A search's ensemble of its folds' nets scales their distances from
            the median by what these say of the rows that each was not trained on.

        Raises
        ------
        ValueError
            If the models have none, or not the same.
        """
        check_is_fitted(self, "weights_")
        if not self._quantiles:
            raise ValueError(
                "predict_quantiles: the models have none, or not the same; fit them with quantiles=(.1, .5, .9), say."
            )
        return scaled(self._average(X, "_quantiles_from"), self._quantiles, self.quantile_factors_)


def _shares(weights: Floats, n: int) -> Floats:
    """Weights that sum to one."""
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError(f"weights={weights.tolist()!r} must be {n} numbers of at least 0, one of them more.")
    return np.asarray(weights / weights.sum())
