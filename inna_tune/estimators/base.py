"""What the classifier and the regressor share: from a table and settings to trained members and back."""

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import Tensor

from inna_tune.engine import Loss, Member, MemberResult, TableTensors, Training, outputs
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.estimators.tables import Weights, as_frame, check_weights, takes_any_table
from inna_tune.nets import ModuleNet, Net, TabularNet
from inna_tune.optim.schedules import DECAY_LAWS

Rows = npt.NDArray[np.int64]

# Below this many rows a tenth of them is too few to tell one epoch from another (on iris twelve rows chose the fourth
# epoch, at 71% accuracy where the last has 95%): train to the end.
_MIN_ROWS_FOR_EARLY_STOPPING = 200


# On a small table an epoch is a step or two, and its validation loss is noise for many epochs: patience lasts at least
# this many steps, which is 15 epochs of a table of some 1,500 rows.
_MIN_PATIENCE_STEPS = 90


# The curvature may grow in the first steps: an automatic step size that diverges is divided by four so many times.
_RETRIES = 3


class DivergenceError(ValueError):
    """Training left the finite numbers before the end of its first epoch."""


@dataclass
class EncodedTable:
    """A table ready for the engine.

    Attributes
    ----------
    x : ndarray of float32, shape [n_samples, n_columns]
    target : ndarray, [n_samples] int64 classes or [n_samples, n_targets] float32
    weight : ndarray of float64 [n_samples] or None
    """

    x: npt.NDArray[np.float32]
    target: npt.NDArray[Any]
    weight: Weights | None

    def tensors(self, device: torch.device) -> TableTensors:
        """The same on a device."""
        weight = None if self.weight is None else torch.from_numpy(self.weight.astype(np.float32)).to(device)
        return TableTensors(
            torch.from_numpy(self.x).to(device), torch.from_numpy(self.target).to(device), weight
        )


class InnaEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of InnaClassifier and InnaRegressor; they add labels or targets, and the loss."""

    # What members of one population may differ in; all else they share.
    _member_parameters = frozenset(
        {"lr", "alpha", "beta", "decay", "decay_power", "weight_decay", "dropout", "validation_fraction"}
        | {"random_state"}
    )

    encoder_: TableEncoder
    weights_: Tensor
    net_: Net
    _loss: Loss

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
        module: Callable[[int, int], torch.nn.Module] | None = None,
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.lr = lr
        self.alpha = alpha
        self.beta = beta
        self.decay = decay
        self.decay_power = decay_power
        self.weight_decay = weight_decay
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.n_members = n_members
        self.module = module
        self.device = device
        self.random_state = random_state

    # ------------------------------------------------------------------ what the two kinds add

    def _fit_target(self, y: Any, weight: Weights | None) -> npt.NDArray[Any]:
        """Learn labels or scale from y and encode it."""
        raise NotImplementedError

    def _class_weights(self, target: npt.NDArray[Any]) -> Weights | None:
        """A factor on the weight of every row, or None."""
        return None

    def _from_outputs(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Probabilities, or values in the target's units, from the members' outputs [P, B, out]."""
        raise NotImplementedError

    @property
    def _out_features(self) -> int:
        raise NotImplementedError

    # ------------------------------------------------------------------ fit

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on a table.

        Parameters
        ----------
        X : DataFrame of pandas or polars, array or sparse matrix, of shape [n_samples, n_features]
            Columns of numbers, booleans, dates, categories and free text; missing values are welcome.
        y : array of shape [n_samples]
            Labels, or values.
        sample_weight : array of shape [n_samples], optional
            Weight of each row; only their ratios matter.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the table makes no sense; the message names it and the remedy.
        DivergenceError
            If the settings diverge within the first epoch.
        """
        self._check_parameters()
        table = self._encode_for_fit(X, y, sample_weight)
        seed, *member_seeds = self._seeds()
        train, validation = self._split(table.target, table.weight, seed)
        members = [self._member(train, validation, s) for s in member_seeds]
        tensors = table.tensors(self._torch_device())
        results = self._train(tensors, members)
        for _ in range(_RETRIES if self.lr == "auto" else 0):
            if any(r.stop_reason != "diverged" for r in results):
                break
            warnings.warn(
                f"The automatic step size lr={results[0].lr:.4g} diverged; trying a quarter of it.",
                ConvergenceWarning,
                stacklevel=2,
            )
            members = [
                replace(m, lr=r.lr / 4, alpha=r.alpha, beta=r.beta)
                for m, r in zip(members, results, strict=True)
            ]
            results = self._train(tensors, members)
        self._take_results(results)
        return self

    def _train(self, table: TableTensors, members: Sequence[Member]) -> list[MemberResult]:
        training = self._training(table, members)
        training.run()
        return training.results

    def _encode_for_fit(self, X: Any, y: Any, sample_weight: Any = None) -> EncodedTable:
        """Fit encoder and target, and encode both; rows of weight zero take no part in anything."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        frame = as_frame(self, X, reset=True)
        weight = check_weights(sample_weight, len(frame))
        y = np.asarray(y) if not hasattr(y, "iloc") else y
        check_consistent_length(frame, y)
        if weight is not None and (weight == 0).any():
            present = weight > 0
            frame, y, weight = frame.loc[present], y[present], weight[present]
        target = self._fit_target(y, weight)
        # NOTE: the net takes every column for a number, so that there must be no codes yet.
        self.encoder_ = TableEncoder(embed=False).fit(frame, sample_weight=weight)
        factor = self._class_weights(target)
        if factor is not None:
            weight = factor if weight is None else weight * factor
        x = self.encoder_.transform(frame)
        self.net_ = self._build_net(x.shape[1], self._out_features)
        return EncodedTable(x, target, weight)

    def _seeds(self) -> list[int]:
        """Seed of the split, then one a member, from ``random_state``; the global stream is never touched."""
        state = self.random_state
        if isinstance(state, np.random.RandomState):
            state = int(state.randint(2**31 - 1))
        elif isinstance(state, np.random.Generator):
            state = int(state.integers(2**31 - 1))
        words = np.random.SeedSequence(state).generate_state(1 + self.n_members)
        return [int(w) for w in words]

    def _split(self, target: npt.NDArray[Any], weight: Weights | None, seed: int) -> tuple[Rows, Rows]:
        """Rows to train on and rows to watch for early stopping."""
        rows = np.arange(len(target), dtype=np.int64)
        if not self.early_stopping or len(rows) < _MIN_ROWS_FOR_EARLY_STOPPING:
            return rows, rows[:0]
        stratify = None
        n_validation = int(np.ceil(self.validation_fraction * len(rows)))
        if target.ndim == 1:
            counts = np.bincount(target)
            if counts[counts > 0].min() >= 2 and n_validation >= (counts > 0).sum():
                stratify = target
        train, validation = train_test_split(
            rows, test_size=n_validation, random_state=seed, stratify=stratify
        )
        return np.sort(train), np.sort(validation)

    def _member(
        self,
        train: Rows,
        validation: Rows,
        seed: int,
        used_features: tuple[int, int] | int | None = None,
    ) -> Member:
        """A member with this estimator's settings."""
        lr, alpha, beta = (
            None if value == "auto" else float(value) for value in (self.lr, self.alpha, self.beta)
        )
        return Member(
            train,
            validation,
            seed,
            lr=lr,
            alpha=alpha,
            beta=beta,
            decay=self.decay,
            decay_power=self.decay_power,
            weight_decay=float(self.weight_decay),
            dropout=float(self.dropout),
            patience=self._patience_for(len(train)),
            used_features=used_features,
        )

    def _layer_sizes(self) -> tuple[int, ...]:
        """``hidden_layer_sizes`` as a tuple of whole numbers, whichever way it was written."""
        sizes = self.hidden_layer_sizes
        found: list[Any] = []
        if isinstance(sizes, str):
            found = [int(size) if size.isdecimal() else None for size in sizes.split("-")]
        elif isinstance(sizes, (int, np.integer)):
            found = [sizes]
        elif isinstance(sizes, (Sequence, np.ndarray)):
            found = list(sizes)
        if all(isinstance(s, (int, np.integer)) and not isinstance(s, bool) and s >= 1 for s in found) and (
            found or not isinstance(sizes, (str, int))
        ):
            return tuple(int(size) for size in found)
        raise ValueError(
            f"hidden_layer_sizes={sizes!r}: must be whole numbers of at least 1, such as (256, 256) or '256-256'."
        )

    def _build_net(self, in_features: int, out_features: int) -> Net:
        if self.module is not None:
            return ModuleNet(self.module, in_features, out_features)
        return TabularNet(in_features, self._layer_sizes(), out_features)

    def _patience_for(self, n_rows: int) -> int | None:
        if not self.early_stopping:
            return None
        steps = -(-n_rows // int(self.batch_size))
        return max(int(self.patience), -(-_MIN_PATIENCE_STEPS // steps))

    def _training(
        self,
        table: TableTensors,
        members: Sequence[Member],
        net: Net | None = None,
        *,
        stacked: bool = False,
    ) -> Training:
        return Training(
            self.net_ if net is None else net,
            table,
            members,
            self._loss,
            batch_size=int(self.batch_size),
            max_epochs=int(self.max_epochs),
            stacked=stacked,
        )

    def _population_key(self) -> Hashable:
        """Estimators of one class whose keys are equal can train as one population."""
        shared = {k: v for k, v in self.get_params().items() if k not in self._member_parameters}
        return tuple((name, repr(value)) for name, value in sorted(shared.items()))

    def _take_results(self, results: Sequence[MemberResult]) -> None:
        """Keep the members that got somewhere."""
        good = [r for r in results if r.weights is not None]
        if not good:
            r = results[0]
            raise DivergenceError(
                f"Training diverged in the first epoch with lr={r.lr:.4g}, alpha={r.alpha:.4g}, beta={r.beta:.4g}. "
                "Lower lr, or leave lr, alpha and beta at 'auto'."
            )
        if any(r.stop_reason == "diverged" for r in results):
            warnings.warn(
                "Training diverged before it ended; the best weights before that are kept. Lower lr to train longer.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.weights_ = torch.stack([r.weights for r in good if r.weights is not None])
        self.members_ = [
            {
                name: getattr(r, name)
                for name in (
                    "lr",
                    "alpha",
                    "beta",
                    "curvature",
                    "best_epoch",
                    "best_loss",
                    "epochs",
                    "stop_reason",
                )
            }
            for r in good
        ]
        self.best_epoch_ = max(r.best_epoch for r in good)
        self.n_iter_ = max(r.epochs for r in good)
        frames = [pd.DataFrame(r.history).astype({"epoch": int}).assign(member=i) for i, r in enumerate(good)]
        self.history_ = pd.concat(frames, ignore_index=True)

    # ------------------------------------------------------------------ predict

    def _outputs(self, X: Any) -> npt.NDArray[np.float64]:
        """Outputs of every member for a table, [P, n_samples, out]."""
        check_is_fitted(self, "weights_")
        x = torch.from_numpy(self.encoder_.transform(as_frame(self, X, reset=False))).to(self.weights_.device)
        # In float64, so that a row's prediction does not depend on the rows predicted with it.
        return outputs(self.net_, self.weights_.double(), x.double()).cpu().numpy()

    def save(self, path: Any) -> None:
        """Write the fitted model to one file; ``inna_tune.load`` reads it back.

        Parameters
        ----------
        path : path
            Where to; an existing file is replaced.
        """
        # NOTE: imported here because saving.py has to know the classes that this module is the base of.
        from inna_tune.estimators.saving import save

        save(self, path)

    # ------------------------------------------------------------------ checks

    def _torch_device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")

    def _check_parameters(self) -> None:
        """Raise a ValueError that names the parameter, its value and the remedy."""

        def refuse(name: str, remedy: str) -> None:
            raise ValueError(f"{name}={getattr(self, name)!r}: {remedy}")

        def number(
            name: str, low: float, high: float = np.inf, *, open_low: bool = False, open_high: bool = False
        ) -> None:
            value = getattr(self, name)
            if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.integer, np.floating)):
                refuse(name, "must be a number.")
            inside = (low < value if open_low else low <= value) and (
                value < high if open_high else value <= high
            )
            if not (inside and np.isfinite(value)):
                refuse(
                    name, f"must lie in {'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}."
                )

        for name in ("lr", "alpha", "beta"):
            value = getattr(self, name)
            if isinstance(value, str):
                if value != "auto":
                    refuse(name, "must be a number or 'auto' (from the curvature of the loss).")
            else:
                number(name, 0.0, open_low=name != "alpha")
        if self.decay not in DECAY_LAWS:
            refuse("decay", f"must be one of {', '.join(DECAY_LAWS)}.")
        if self.decay_power is not None:
            number("decay_power", 0.0, open_low=True)
        number("weight_decay", 0.0)
        number("dropout", 0.0, 1.0, open_high=True)
        number("validation_fraction", 0.0, 1.0, open_low=True, open_high=True)
        for name in ("batch_size", "max_epochs", "patience", "n_members"):
            if isinstance(getattr(self, name), bool) or not isinstance(
                getattr(self, name), (int, np.integer)
            ):
                refuse(name, "must be a whole number of at least 1.")
            number(name, 1)
        self._layer_sizes()
        if self.random_state is not None and not isinstance(
            self.random_state, (int, np.integer, np.random.RandomState, np.random.Generator)
        ):
            refuse("random_state", "must be None, a whole number or a numpy random generator.")
        try:
            self._torch_device()
        except (RuntimeError, TypeError):
            refuse("device", "must be 'auto', 'cpu', 'cuda' or another torch device.")

    def __sklearn_tags__(self) -> Any:
        return takes_any_table(super().__sklearn_tags__())
