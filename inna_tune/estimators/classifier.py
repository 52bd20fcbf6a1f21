"""InnaClassifier."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from inna_tune.engine import CrossEntropy
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.tables import Weights


class InnaClassifier(ClassifierMixin, InnaEstimator):  # type: ignore[misc]
    """A neural classifier for tables, trained by INNA.

    Parameters
    ----------
    lr, alpha, beta : float or "auto", default="auto"
        INNA's step size γ, viscous friction α and Newtonian damping β. "auto" takes them from the curvature of the
        loss at the initial weights, so that an untuned fit is stable on any table (``inna_tune.optim.calibrate``).
    decay : {"constant", "power", "log", "cosine"}, default="power"
        Law by which the step size falls; ``inna_tune.optim.decay_factor`` has the formulas.
    decay_power : float, optional
        Power of the laws "power" and "log".
    weight_decay : float, default=0.0
        INNA's weight decay λ (the gradient gains λ/β times the weights).
    hidden_layer_sizes : sequence of int, int or str, default=(256, 256)
        Widths of the hidden layers. "256-256" means the same: a search space can hold it, and not a tuple.
    dropout : float, default=0.0
        Probability of dropping a hidden unit.
    batch_size, max_epochs : int, default=256 and 100
        Rows in a batch, and the most passes over the rows.
    early_stopping : bool, default=True
        Hold ``validation_fraction`` of the rows out of training, stop after ``patience`` epochs without a better loss
        on them, and restore the best epoch's weights. Tables under 200 rows train to the end.
    patience : int, default=15
        Epochs; on small tables it lasts at least 90 steps of the optimizer.
    validation_fraction : float, default=0.1
    n_members : int, default=1
        Nets trained side by side from different seeds; their probabilities are averaged.
    class_weight : dict, "balanced" or None, default=None
        As in scikit-learn.
    module : callable, optional
        ``module(in_features, out_features)`` builds a `torch.nn.Module` to train in place of the multi-layer perceptron;
        ``hidden_layer_sizes`` and ``dropout`` then mean nothing. It sees encoded rows [B, in_features] and returns logits
        [B, out_features]. Members are stacked by `torch.func`; what that cannot do (BatchNorm) trains one by one.
    device : str, default="auto"
        "auto" takes a CUDA device if there is one.
    random_state : int, RandomState, Generator or None, default=None
        The same whole number gives the same model, whatever ran before.

    Attributes
    ----------
    classes_ : ndarray of shape [n_classes]
    history_ : DataFrame
        Columns epoch, train_loss, validation_loss, lr, seconds, member.
    best_epoch_ : int
        Epoch whose weights were kept (the latest over members).
    members_ : list of dict
        Settings used and outcome of every member, calibrated lr, alpha, beta and the curvature among them.
    encoder_ : TableEncoder
    n_features_in_, feature_names_in_
        As in scikit-learn.

    References
    ----------
    Castera, Bolte, Févotte, Pauwels: An Inertial Newton Algorithm for Deep Learning. JMLR 22(134), 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from inna_tune import InnaClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> model = InnaClassifier(hidden_layer_sizes=(32,), max_epochs=30, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.9)
    True
    """

    _loss = CrossEntropy()

    def __init__(
        self,
        *,
        lr: float | str = "auto",
        alpha: float | str = "auto",
        beta: float | str = "auto",
        decay: str = "power",
        decay_power: float | None = None,
        weight_decay: float = 0.0,
        hidden_layer_sizes: Sequence[int] | int | str = (256, 256),
        dropout: float = 0.0,
        batch_size: int = 256,
        max_epochs: int = 100,
        early_stopping: bool = True,
        patience: int = 15,
        validation_fraction: float = 0.1,
        n_members: int = 1,
        class_weight: Mapping[Any, float] | str | None = None,
        module: Callable[[int, int], torch.nn.Module] | None = None,
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        super().__init__(
            lr=lr,
            alpha=alpha,
            beta=beta,
            decay=decay,
            decay_power=decay_power,
            weight_decay=weight_decay,
            hidden_layer_sizes=hidden_layer_sizes,
            dropout=dropout,
            batch_size=batch_size,
            max_epochs=max_epochs,
            early_stopping=early_stopping,
            patience=patience,
            validation_fraction=validation_fraction,
            n_members=n_members,
            module=module,
            device=device,
            random_state=random_state,
        )
        self.class_weight = class_weight

    @property
    def _out_features(self) -> int:
        return len(self.classes_)

    def _fit_target(self, y: Any, weight: Weights | None) -> npt.NDArray[np.int64]:
        y = column_or_1d(y, warn=True)
        missing = int(pd.isna(y).sum())
        if missing:
            raise ValueError(f"Input y contains NaN ({missing} missing labels). Drop those rows.")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"The number of classes has to be greater than one; got 1 class: {self.classes_.tolist()[0]!r}."
            )
        return codes.astype(np.int64)

    def _class_weights(self, target: npt.NDArray[Any]) -> Weights | None:
        if self.class_weight is None:
            return None
        present = np.unique(target)
        factors = np.ones(len(self.classes_))
        factors[present] = compute_class_weight(
            self.class_weight, classes=self.classes_[present], y=self.classes_[target]
        )
        return np.asarray(factors[target])

    def _from_outputs(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(softmax(raw, axis=-1).mean(0))

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probability of every class.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]

        Returns
        -------
        ndarray of shape [n_samples, n_classes], columns in the order of ``classes_``.
        """
        return self._from_outputs(self._outputs(X))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable class of every row, shape [n_samples]."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])
