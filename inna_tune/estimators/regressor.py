"""InnaRegressor."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from inna_tune.engine import SquaredError
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.frames import Weights
from inna_tune.estimators.predicting import PredictingMixin
from inna_tune.estimators.targets import read_values


class InnaRegressor(PredictingMixin, InnaEstimator):
    """A neural regressor for tables, trained by INNA on the standardised target.

    Parameters
    ----------
    lr, alpha, beta : float or "auto", default="auto"
        INNA's step size γ, viscous friction α and Newtonian damping β. "auto" takes them from the curvature of the
        loss at the initial weights, so that an untuned fit is stable on any table (``inna_tune.optim.calibrate``).
    step_ratio, friction, damping, decay, decay_power, weight_decay, hidden_layer_sizes, block, activation, \
numeric_embedding, dropout, optimizer, optimizer_params, scale_tensors, gradient_clip, averaging, batch_size, max_epochs, \
max_time, early_stopping, eval_metric, patience, validation_fraction, n_members, warm_start, encoder, module, precision, \
device, n_jobs, random_state
        As in :class:`InnaClassifier`, but the usual friction is 0.06, and 0.05 of the units are dropped, which served
        regression better (studies/accuracy.py). The members' predictions are averaged, with ``n_members="auto"`` too.

    Attributes
    ----------
    history_ : DataFrame
        Columns epoch, train_loss, validation_loss (squared error of the standardised target), lr, seconds, member,
        stopped.
    best_epoch_, members_, encoder_, schema_, n_features_in_, feature_names_in_
        As in :class:`InnaClassifier`.
    target_mean_, target_scale_ : ndarray of shape [n_targets]
        What the target was standardised by.

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

    _loss = SquaredError()

    @property
    def _out_features(self) -> int:
        return len(self.target_mean_)

    def _fit_target(self, y: Any, weight: Weights | None) -> npt.NDArray[np.float64]:
        y = self._plain_target(y)
        self._one_target = y.ndim == 1
        values = y.reshape(len(y), -1)
        self.target_mean_ = np.average(values, axis=0, weights=weight)
        spread = np.sqrt(np.average((values - self.target_mean_) ** 2, axis=0, weights=weight))
        self.target_scale_ = np.where(spread > 0, spread, 1.0)
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
        return np.asarray((values - self.target_mean_) / self.target_scale_)

    def _target_to_plain(self) -> dict[str, Any]:
        return {
            "mean": self.target_mean_.tolist(),
            "scale": self.target_scale_.tolist(),
            "one_target": self._one_target,
        }

    def _restore_target(self, plain: Mapping[str, Any]) -> None:
        self.target_mean_ = np.array(plain["mean"], dtype=np.float64)
        self.target_scale_ = np.array(plain["scale"], dtype=np.float64)
        self._one_target = bool(plain["one_target"])

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
        values = raw.mean(0) * self.target_scale_ + self.target_mean_
        return np.asarray(values[:, 0] if self._one_target else values)

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Predicted values.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]

        Returns
        -------
        ndarray of shape [n_samples], or [n_samples, n_targets] if fitted to several targets.
        """
        return self._from_outputs(self._outputs(X))
