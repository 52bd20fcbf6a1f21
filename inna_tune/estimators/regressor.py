"""InnaRegressor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from inna_tune.engine import Loss, Pinball, SquaredError, TableTensors
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.checks import Where
from inna_tune.estimators.frames import Weights
from inna_tune.estimators.predicting import PredictingMixin
from inna_tune.estimators.recalibration import factors_of, median_weights, scaled, told_of_left_out
from inna_tune.estimators.splitting import Rows
from inna_tune.estimators.targets import location_and_scale, read_values

_HALF_OF_THE_LARGEST = np.finfo(np.float64).max / 2


def quantiles_of(quantiles: Any) -> tuple[float, ...]:
    """Quantiles as they were given, checked.

    Raises
    ------
    ValueError, TypeError
        If they are no numbers between 0 and 1 in ascending order.
    """
    found = tuple(float(each) for each in quantiles)
    if not found or not all(0 < each < 1 for each in found) or any(b <= a for a, b in pairwise(found)):
        raise ValueError(f"quantiles={quantiles!r} must be between 0 and 1 and in ascending order")
    return found


def restored_factors(plain: Any, n_quantiles: int) -> npt.NDArray[np.float64]:
    """Factors of quantiles as a file has them; files of before have none, which are ones.

    Raises
    ------
    ValueError
        If they make no sense.
    """
    factors = np.ones(n_quantiles) if plain is None else np.array(plain, dtype=np.float64)
    if factors.shape != (n_quantiles,) or not np.isfinite(factors).all() or (factors < 0).any():
        raise ValueError(f"factors of quantiles {str(plain)[:80]} do not fit {n_quantiles} quantiles")
    return factors


@dataclass(kw_only=True, eq=False, repr=False)
class InnaRegressor(PredictingMixin, InnaEstimator):
    """A neural regressor for tables, trained by INNA on the standardised target.

    Parameters
    ----------
    lr, alpha, beta : float or "auto", default="auto"
        INNA's step size γ, viscous friction α and Newtonian damping β. "auto" takes them from the curvature of the
        loss at the initial weights, so that an untuned fit is stable on any table (``inna_tune.optim.calibrate``).
    step_ratio, friction, damping, decay, decay_power, weight_decay, hidden_layer_sizes, block, activation, \
numeric_embedding, linear_path, dropout, optimizer, optimizer_params, scale_tensors, longest_step, gradient_clip, averaging, \
batch_size, max_epochs, max_time, early_stopping, eval_metric, patience, validation_fraction, n_members, warm_start, \
encoder, module, precision, device, n_jobs, callbacks, random_state
        As in :class:`InnaClassifier`, but the linear models are ridge regressions, the usual friction is 0.03 to 0.06, and 0.05
        of the units are dropped, which served regression better (studies/accuracy.py). The members' predictions are averaged,
        with ``n_members="auto"`` too.
    quantiles : sequence of float, optional
        Train on these quantiles of the target, in ascending order, by the pinball loss, in place of its mean:
        ``predict_quantiles`` gives them, ``predict`` the median. Of (.1, .5, .9) the outer two hold about 80% of new rows:
        distances from the median are scaled by what rows say that early stopping left out, where there are such
        (Romano, Patterson and Candès, NeurIPS 2019).

    Attributes
    ----------
    history_ : DataFrame
        Columns epoch, train_loss, validation_loss (squared error of the standardised target), lr, seconds, member,
        stopped.
    best_epoch_, members_, encoder_, schema_, n_features_in_, feature_names_in_
        As in :class:`InnaClassifier`.
    target_mean_, target_scale_ : ndarray of shape [n_targets]
        What the target was standardised by. The scale of a target of one value is 0: it is predicted as that value.
    quantile_factors_ : ndarray of shape [n_quantiles]
        By which the quantiles' distances from the median were scaled; only with ``quantiles``.

    References
    ----------
    Castera, Bolte, Févotte, Pauwels: An Inertial Newton Algorithm for Deep Learning. JMLR 22(134), 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from inna_tune import InnaRegressor
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> model = InnaRegressor(hidden_layer_sizes=(32,), max_epochs=30, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.3)
    True
    """

    quantiles: Sequence[float] | None = None

    _parameter_constraints: ClassVar[dict[str, Any]] = InnaEstimator._parameter_constraints | {
        "quantiles": [
            Where(quantiles_of, "numbers between 0 and 1 in ascending order, such as (.1, .5, .9)"),
            None,
        ],
    }

    @property
    def _loss(self) -> Loss:  # type: ignore[override]
        return SquaredError() if self.quantiles is None else Pinball(quantiles_of(self.quantiles))

    @property
    def _out_features(self) -> int:
        return len(self.target_mean_) if self.quantiles is None else len(self.quantiles)

    def _fit_target(self, y: Any, weight: Weights | None) -> npt.NDArray[np.float64]:
        y = self._plain_target(y)
        self._one_target = y.ndim == 1
        values = y.reshape(len(y), -1)
        if self.quantiles is not None and values.shape[1] > 1:
            raise ValueError(
                f"quantiles={self.quantiles!r} are of one target, and y has {values.shape[1]}; fit one model a target."
            )
        self.target_mean_, self.target_scale_ = location_and_scale(values, weight)
        if self.quantiles is not None:
            self.quantile_factors_ = np.ones(len(quantiles_of(self.quantiles)))
        elif hasattr(self, "quantile_factors_"):
            del self.quantile_factors_
        return self._encode_target(values)

    def _plain_target(self, y: Any) -> npt.NDArray[np.float64]:
        return read_values(y, self)

    def _encode_target(self, y: Any) -> npt.NDArray[np.float64]:
        values = self._plain_target(y).reshape(len(y), -1)
        if values.shape[1] != len(self.target_mean_):
            raise ValueError(
                f"y has {values.shape[1]} targets, and the first fit had {len(self.target_mean_)}; fit anew with "
                "warm_start=False."
            )
        scale = np.where(self.target_scale_ > 0, self.target_scale_, 1.0)
        # The difference of two numbers near the largest has no float64.
        unit = 0.5 if np.abs(values).max() > _HALF_OF_THE_LARGEST else 1.0
        return np.asarray((values * unit - self.target_mean_ * unit) / (scale * unit))

    def _learn_more_of_target(self, y: Any) -> None:
        values = self._plain_target(y).reshape(len(y), -1)
        if values.shape[1] == len(self.target_mean_):
            # What was of one value so far has the unit in which it leaves that.
            apart = np.abs(values - self.target_mean_).max(axis=0)
            self.target_scale_ = np.where(self.target_scale_ > 0, self.target_scale_, apart)

    def _learn_from_left_out(self, table: TableTensors, left_out: Sequence[Rows]) -> None:
        if self.quantiles is None:
            return
        self.quantile_factors_ = np.ones(len(self.quantiles))
        if (together := told_of_left_out(self, table, left_out)) is None:
            return
        rows, raw = together
        weight = None if table.weight is None else table.weight.cpu()[rows].double().numpy()
        target = table.target.cpu()[rows].double().numpy()[:, 0]
        self.quantile_factors_ = factors_of(
            np.sort(raw, axis=-1), quantiles_of(self.quantiles), target, weight
        )

    def _target_to_plain(self) -> dict[str, Any]:
        plain = {
            "mean": self.target_mean_.tolist(),
            "scale": self.target_scale_.tolist(),
            "one_target": self._one_target,
        }
        if self.quantiles is not None:
            plain["quantile_factors"] = self.quantile_factors_.tolist()
        return plain

    def _restore_target(self, plain: Mapping[str, Any]) -> None:
        self.target_mean_ = np.array(plain["mean"], dtype=np.float64)
        self.target_scale_ = np.array(plain["scale"], dtype=np.float64)
        self._one_target = bool(plain["one_target"])
        if self.quantiles is not None:
            self.quantile_factors_ = restored_factors(plain.get("quantile_factors"), len(self.quantiles))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch more, on these rows alone.

        The first call learns from them how to encode tables and scale targets; later calls go on with weights and velocity
        as they were left.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]
        y : array of shape [n_samples] or [n_samples, n_targets]
        sample_weight : array of shape [n_samples], optional

        Returns
        -------
        self
        """
        self._train_one_epoch(X, y, sample_weight)
        return self

    def _from_outputs(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.quantiles is not None:
            return np.asarray(self._unscaled_quantiles(raw) @ median_weights(quantiles_of(self.quantiles)))
        values = raw.mean(0) * self.target_scale_ + self.target_mean_
        return np.asarray(values[:, 0] if self._one_target else values)

    def _unscaled_quantiles(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Quantiles [n_samples, n_quantiles] in the target's units as they were trained, in ascending order.

        Sorted where they cross, which brings them no farther from the true ones (Chernozhukov, Fernández-Val and Galichon,
        Quantile and Probability Curves Without Crossing, Econometrica 78, 2010).
        """
        return np.asarray(np.sort(raw.mean(0), axis=-1) * self.target_scale_ + self.target_mean_)

    def _quantiles_from(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Quantiles [n_samples, n_quantiles] in the target's units, scaled, in ascending order."""
        return scaled(self._unscaled_quantiles(raw), quantiles_of(self.quantiles), self.quantile_factors_)

    def predict_quantiles(self, X: Any) -> npt.NDArray[np.float64]:
        """Predicted quantiles of the target, given each row.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]

        Returns
        -------
        ndarray of shape [n_samples, n_quantiles]
            In the order of ``quantiles``; no row's cross. A quantile for which nothing stands on the other side of the
            median stays as it was trained, if it stands for the median itself.

        Raises
        ------
        ValueError
            If the model was fitted without ``quantiles``.
        """
        if self.quantiles is None:
            raise ValueError(
                "predict_quantiles: the model has none; fit it with quantiles=(.1, .5, .9), say."
            )
        return self._quantiles_from(self._outputs(X))

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Predicted values; with ``quantiles`` the median as it was trained, by a straight line between those beside it.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]

        Returns
        -------
        ndarray of shape [n_samples], or [n_samples, n_targets] if fitted to several targets.
        """
        return self._from_outputs(self._outputs(X))
