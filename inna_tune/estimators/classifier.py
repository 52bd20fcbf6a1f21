"""InnaClassifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax, softmax
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from inna_tune.engine import CrossEntropy
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.checks import Number, Where, check_class_weights, one_of
from inna_tune.estimators.frames import Weights, in_a_common_unit
from inna_tune.estimators.labelling import LabellingMixin
from inna_tune.estimators.saving import typed, untyped
from inna_tune.estimators.targets import read_labels


@dataclass(kw_only=True, eq=False, repr=False)
class InnaClassifier(LabellingMixin, InnaEstimator):
    """A neural classifier for tables, trained by INNA.

    Parameters
    ----------
    lr, alpha, beta : float or "auto", default="auto"
        INNA's step size γ, viscous friction α and Newtonian damping β. "auto" takes them from the curvature of the
        loss at the initial weights, so that an untuned fit is stable on any table (``inna_tune.optim.calibrate``);
        `longest_step` holds them where that rises.
    step_ratio, friction, damping : float, optional
        The same three as pure numbers, which mean the same on every table, so that any search can tune them: with the
        curvature λ that "auto" measures, friction is α̃ = α/√λ, damping the ratio ζ = (α/√λ + β√λ)/2, and the step is the
        largest that is stable up to curvature step_ratio · λ (a lower ratio is a longer step, 1 the edge of stability). Each
        is given in place of its natural counterpart, which stays "auto"; "auto" alone is step_ratio=2,
        damping=0.75 and friction=0.06, or up to 0.24 where an epoch has fewer than 32 steps. ``SearchSpace.inna(pure=True)``
        has priors for them. ``optimizer="sgd"`` takes step_ratio, others none.
    decay : {"constant", "power", "log", "cosine"}, default="cosine"
        Law by which the step size falls; ``inna_tune.optim.decay_factor`` has the formulas.
    decay_power : float, optional
        Power of the laws "power" and "log".
    weight_decay : float, default=0.0
        INNA's weight decay λ (the gradient gains λ/β times the weights).
    hidden_layer_sizes : sequence of int, int or str, default=(256, 256)
        Widths of the hidden layers. "256-256" means the same: a search space can hold it, and not a tuple.
    block : {"plain", "residual"}, default="plain"
        Whether the hidden layers follow each other, or form residual blocks on a trunk as wide as the first.
    activation : {"relu", "gelu", "silu", "mish", "selu"}, default="mish"
    numeric_embedding : {"none", "periodic", "pbld", "piecewise"}, default="piecewise"
        What numeric columns go through before the first layer, see `inna_tune.nets.TabularNet`.
    linear_path : bool, default=True
        Whether half of the nets that ``n_members="auto"`` trains on fewer rows than 4,000 begin as linear models of their rows:
        logistic regressions of the encoded columns, beside which the layers learn what is left. Rows that were left out tell
        which half predicts, or both. Beyond 1,000 columns, or where classes are many, none does.
    dropout : float, default=0.25
        Probability of dropping a hidden unit.
    label_smoothing : float, default=0.0
        Share of each label that is spread over all classes.
    optimizer : {"inna", "innaprop", "sgd", "adamw", "muon"} or class of torch.optim, default="inna"
        With "sgd" ``lr="auto"`` comes from the curvature too; with the others it is the optimizer's own default. "muon", or
        ``torch.optim.Muon``, steps the weights of hidden layers by Muon and all else by AdamW, with steps of one length
        (``adjust_lr_fn="match_rms_adamw"``).
    optimizer_params : mapping, optional
        Further arguments of the optimizer. Those given here can be set, and searched over, as ``optimizer__NAME``.
    scale_tensors : bool, default=True
        With "inna" and "sgd", multiply the step of each layer's weights by min(1, λ₁/λ), from the curvature λ of their own
        block of the Hessian at the initial weights and that of the first layer: else the steepest layer holds back the
        others. A regressor's weights that read a level, or another column beside the numbers, step by 1/E[x²] of that column,
        at least 1 and at most 25 times as far. ``lr``, ``alpha`` and ``beta`` are in the coordinates that this stretches.
    longest_step : float or None, default=0.1
        Share of the length of a net's weights that one gradient, by itself, may carry them by, with "inna" and "sgd": one that
        would carry them farther is shortened, so that nets do not run away, and where that is so at more than one in twenty
        steps, all later steps are shorter. What would carry them by a thousand times their length shows a step that diverges,
        and is let go. None: no limit. Nets of a `module` have none.
    gradient_clip : float, optional
        Longest gradient of a member.
    averaging : float or None, default=0.99
        Decay a step of an exponential average of the weights, which is what is validated and kept.
    batch_size : int, default=128
    max_epochs : int or "auto", default="auto"
        The most passes over the rows, and where the cosine law ends. "auto" is 300 under 4,000 rows, of which an epoch is few
        steps and early stopping ends most trainings long before, and 100 on more, or without early stopping.
    max_time : float, optional
        Seconds after which no further batch is begun; the first epoch has a second and a step whatever the time is.
    early_stopping : bool, default=True
        Hold ``validation_fraction`` of the rows out of training, stop after ``patience`` epochs without a better loss
        on them, and restore the best epoch's weights; or watch ``X_val``, where ``fit`` gets it. Tables under 200 rows train
        to the end. With ``n_members="auto"`` each of several nets has rows of its own for that, see there.
    eval_metric : str or callable, optional
        What tells the best epoch on those rows in place of the loss: the name of a scorer of scikit-learn's, or a function of
        (estimator, X, y) whose result is better the higher it is; ``history_`` then has a column ``validation_score``. What
        it is given as estimator stands for the nets as they are and predicts those rows alone. Model files keep a name.
    patience : int or "auto", default="auto"
        Epochs; on small tables a number lasts at least 90 steps of the optimizer. "auto" is 15, and 8, or 60 steps, where nets
        are stopped together by the loss of what they predict together, which is smoother.
    validation_fraction : float, default=0.1
    n_members : int or "auto", default="auto"
        Nets trained side by side from different seeds. A number's have the same rows, and their probabilities are averaged.
        "auto" is as many as have 16,000 rows together, and two at least under 25,000 rows: four on 4,000 rows, one on 25,000.
        Each leaves out another part of the rows, of the size that ``validation_fraction`` says, and by what nets predict of
        rows they never saw all stop at one epoch. On fewer rows than 4,000 it is eight, each of which leaves a quarter out, so
        that no row is lost to validation (``validation_fraction`` means nothing then). They are of two kinds (``linear_path``),
        and those count that predict rows left out better, or all where both are level within a hundredth. All pool the
        logarithms of their probabilities. Under 40 rows, or without early stopping, they have all rows and train to the end,
        which under 40 is 30 epochs, or as many as make 50 steps, but at most ``max_epochs``. A warm start, and
        ``partial_fit``, go on with the nets there are; a first ``partial_fit`` begins with one.
    class_weight : dict, "balanced" or None, default=None
        As in scikit-learn.
    warm_start : bool, default=False
        Go on with weights and velocity of the fit before, on a table of the same columns, for up to ``max_epochs`` more. The
        laws of decay count on, but for "cosine", which begins anew, and in ``partial_fit`` stays where it begins.
    encoder : TableEncoder, optional
        How columns become numbers, not fitted; what is fitted is a clone. None: ``TableEncoder()``.
    module : callable, optional
        ``module(in_features, out_features)`` builds a `torch.nn.Module` to train in place of the multi-layer perceptron;
        ``hidden_layer_sizes`` and ``dropout`` then mean nothing. It sees encoded rows [B, in_features] and returns logits
        [B, out_features]. Members are stacked by `torch.func`; what that cannot do (BatchNorm) trains one by one.
    precision : {"float32", "tf32", "bf16"}, default="float32"
        Of matrix products in training: TF32 on CUDA, or bfloat16. With "float32" tables of at most 256 rows train in
        float64, so that rounding does not show in the predictions: in a single batch, without early stopping, a row of
        weight two then is two rows.
    device : str, default="auto"
        "auto" takes a CUDA device if there is one.
    n_jobs : int, optional
        Threads of a fit, and of predicting, at most; -1 means one a core. None: as many as torch is set to. What they were
        before is put back.
    callbacks : sequence of callables, optional
        Called after every epoch of ``fit`` with an `inna_tune.estimators.Epoch`; one that returns True ends the training, with
        the best weights so far. Those of scikit-learn's protocol (``set_callbacks``, from 1.9 on) hear of epochs as tasks. Of
        a search they watch the refit alone. No model file holds them.
    random_state : int, RandomState, Generator or None, default=None
        The same whole number gives the same model, whatever ran before.

    Attributes
    ----------
    classes_ : ndarray of shape [n_classes]
    history_ : DataFrame
        Columns epoch, train_loss, validation_loss, lr, seconds, member, stopped; the last holds in a member's last row why
        it stopped: max_epochs, early_stopping, diverged, time or interrupted.
    best_epoch_ : int
        Epoch whose weights were kept (the latest over members).
    members_ : list of dict
        Settings used and outcome of every member, calibrated lr, alpha, beta and the curvature among them.
    encoder_ : TableEncoder
    schema_ : TableSchema
        What the columns were, so that files are read as such.
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

    dropout: float = 0.25
    label_smoothing: float = 0.0
    class_weight: Mapping[Any, float] | str | None = None

    _parameter_constraints: ClassVar[dict[str, Any]] = InnaEstimator._parameter_constraints | {
        "label_smoothing": [Number(Real, 0, 1, closed="left")],
        "class_weight": [
            Where(check_class_weights, "a dict of weights, finite and at least 0"),
            one_of("balanced"),
            None,
        ],
    }

    @property
    def _out_features(self) -> int:
        return len(self.classes_)

    def _fit_target(self, y: Any, weight: Weights | None) -> npt.NDArray[np.int64]:
        y = self._plain_target(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if hasattr(self, "_all_classes"):
            self.classes_ = self._all_classes
            codes = self._encode_target(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"The number of classes has to be greater than one; got 1 class: {self.classes_.tolist()[0]!r}."
            )
        return codes.astype(np.int64)

    def _plain_target(self, y: Any) -> npt.NDArray[Any]:
        labels = read_labels(y)
        check_classification_targets(labels)
        return labels

    def _encode_target(self, y: Any) -> npt.NDArray[np.int64]:
        y = read_labels(y)
        codes = pd.Index(self.classes_).get_indexer(pd.Index(y))
        if (codes < 0).any():
            strangers = pd.unique(np.asarray(y)[codes < 0])[:5].tolist()
            raise ValueError(
                f"y holds labels that the first fit did not see: {strangers}. Name all classes in the first call of "
                "partial_fit, or fit anew with warm_start=False."
            )
        return np.asarray(codes, dtype=np.int64)

    def _target_to_plain(self) -> dict[str, Any]:
        return {"classes": [typed(v) for v in self.classes_.tolist()], "dtype": str(self.classes_.dtype)}

    def _restore_target(self, plain: Mapping[str, Any]) -> None:
        if np.dtype(plain["dtype"]).kind not in "biufUO":
            raise ValueError(f"its labels are of type {plain['dtype']}")
        self.classes_ = np.array([untyped(v) for v in plain["classes"]], dtype=plain["dtype"])

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch more, on these rows alone.

        The first call learns from them how to encode tables; later calls go on with weights and velocity as they were left.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]
        y : array of shape [n_samples]
        classes : array of shape [n_classes], optional
            All labels that will ever come, in the first call; by default those in ``y``.
        sample_weight : array of shape [n_samples], optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``y`` holds a label that is none of the classes, or ``classes`` are others than those of the first call.
        """
        if classes is not None:
            known = np.unique(read_labels(classes))
            if hasattr(self, "weights_") and not np.array_equal(known, self.classes_):
                raise ValueError(
                    f"classes={list(classes)!r} are not those of the first call of partial_fit, {self.classes_.tolist()}."
                )
            self._all_classes = known
        try:
            self._train_one_epoch(X, y, sample_weight)
        finally:
            self.__dict__.pop("_all_classes", None)
        return self

    def _row_weights(
        self, target: npt.NDArray[Any], weight: Weights | None, *, learned_on: Any = None
    ) -> Weights | None:
        if self.class_weight is None:
            return weight
        trained, its_weight = (target, weight) if learned_on is None else learned_on
        present = np.unique(trained)
        factors = np.ones(len(self.classes_))
        factors[present] = compute_class_weight(
            self.class_weight,
            classes=self.classes_[present],
            y=self.classes_[trained],
            sample_weight=its_weight,
        )
        factors = in_a_common_unit(factors)
        weights = np.asarray(factors[target] if weight is None else weight * factors[target])
        if not weights.any():
            raise ValueError(
                f"class_weight={self.class_weight!r} is zero for every row; give a class of y a positive weight."
            )
        return weights

    def _from_outputs(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.n_members == "auto" and len(raw) > 1:
            # As those who stopped them did: a mean of probabilities is less sure than its members, who know few rows.
            return np.asarray(softmax(log_softmax(raw, axis=-1).mean(0), axis=-1))
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
