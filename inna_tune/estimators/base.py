"""What the classifier and the regressor share: from a table and settings to trained members and back."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from inna_tune import clock
from inna_tune.engine import (
    Loss,
    Member,
    MemberProgress,
    MemberResult,
    MemberState,
    TableTensors,
    Training,
    ordinary_tensors,
    predicted,
)
from inna_tune.estimators.checks import check_device, check_parameters
from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.estimators.fitted import FittedMixin, counting
from inna_tune.estimators.frames import Weights, as_frame, check_weights, takes_any_table
from inna_tune.estimators.hurrying import LEAST_SECONDS, members_in_time, warn_of_haste
from inna_tune.estimators.interruption import keeps_best
from inna_tune.estimators.memory import MemoryMixin, warn_of_memory
from inna_tune.estimators.metrics import judged_of
from inna_tune.estimators.pure import check_pure_numbers
from inna_tune.estimators.recipe import Recipe
from inna_tune.estimators.saving import SavedMixin, Tensors, restore, to_plain
from inna_tune.estimators.schema import TableSchema
from inna_tune.estimators.sharing import SharingMixin
from inna_tune.estimators.splitting import Rows
from inna_tune.estimators.stationary import StationarityMixin
from inna_tune.estimators.threads import n_threads, threads_of
from inna_tune.estimators.validating import check_validation, with_validation
from inna_tune.estimators.watching import Watch, watching
from inna_tune.nets import Net

# Tables of at most so many rows, a batch of the default size, train in float64, which costs nothing there. Near the edge
# of stability a rounding error may grow a thousandfold until the end: in float32 the order of the rows shows in the
# predictions' fourth digit, and a row of weight two is not quite two rows.
_FLOAT64_ROWS = 256

# The curvature may grow in the first steps: an automatic step size that diverges is divided by four so many times.
RETRIES = 3


class InnaEstimator(
    MemoryMixin, StationarityMixin, SharingMixin, SavedMixin, FittedMixin, Recipe, in_files=False
):
    """Base of InnaClassifier and InnaRegressor; they add labels or targets, and the loss."""

    encoder_: TableEncoder
    net_: Net
    _loss: Loss

    # ------------------------------------------------------------------ what the two kinds add

    def _fit_target(self, y: Any, weight: Weights | None) -> npt.NDArray[Any]:
        """Learn labels or scale from y and encode it."""
        raise NotImplementedError

    def _plain_target(self, y: Any) -> npt.NDArray[Any]:
        """Labels or values of any type as a checked array of numpy's."""
        raise NotImplementedError

    def _encode_target(self, y: Any) -> npt.NDArray[Any]:
        """Encode y by what was learned."""
        raise NotImplementedError

    def _learn_more_of_target(self, y: Any) -> None:
        """Learn what further rows to train on alone can tell of the target."""

    def _row_weights(
        self, target: npt.NDArray[Any], weight: Weights | None, *, learned_on: Any = None
    ) -> Weights | None:
        """The weights of rows with what their targets add, as it is of these rows or of another (target, weight)."""
        return weight

    def _target_to_plain(self) -> dict[str, Any]:
        """What was learned of the target, as JSON-able data for a model file."""
        raise NotImplementedError

    def _restore_target(self, plain: Mapping[str, Any]) -> None:
        """Take back what ``_target_to_plain`` gave; an error says that it makes no sense."""
        raise NotImplementedError

    def _from_outputs(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Probabilities, or values in the target's units, from the members' outputs [P, B, out]."""
        raise NotImplementedError

    def _learn_from_left_out(self, table: TableTensors, left_out: Sequence[Rows]) -> None:
        """Learn from rows of the table that each of the trained members was not trained on; by default nothing."""

    @property
    def _out_features(self) -> int:
        raise NotImplementedError

    # ------------------------------------------------------------------ fit

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train on a table.

        Parameters
        ----------
        X : DataFrame of pandas or polars, array or sparse matrix, of shape [n_samples, n_features]
            Columns of numbers, booleans, dates, categories and free text; missing values are welcome.
        y : array of shape [n_samples]
            Labels, or values.
        sample_weight : array of shape [n_samples], optional
            Weight of each row; only their ratios matter.
        X_val : DataFrame or array of shape [n_validation, n_features], optional
            Rows to stop early by, of the same columns. All members then train on all rows of X, and differ by their seeds
            alone; ``validation_fraction`` means nothing.
        y_val : array of shape [n_validation], optional
            Their labels, all of which are in y, or values.
        sample_weight_val : array of shape [n_validation], optional
            Their weights.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or a table makes no sense; the message names it and the remedy.
        DivergenceError
            If the settings diverge within the first epoch.

        Notes
        -----
        Ctrl-C ends a fit with the best weights so far, and a warning; within `InnaSearchCV` and the ensembles it raises
        KeyboardInterrupt, as a model that was trained half must not stand for a whole one. A search of others, such as
        scikit-learn's ``GridSearchCV``, goes on with its next fit: end it by a second Ctrl-C before that has an epoch.
        """
        began = clock.now()
        self._check_parameters()
        is_given = check_validation(self, X_val, y_val, sample_weight_val)
        with ordinary_tensors(), threads_of(self.n_jobs):
            self._fit((X, y, sample_weight), (X_val, y_val, sample_weight_val) if is_given else None, began)
        return self

    def _fit(self, rows: tuple[Any, Any, Any], validation: tuple[Any, Any, Any] | None, began: float) -> None:
        """Train on rows with their target and weights, and stop early by others, where these are given."""
        states = self._states if self.warm_start and hasattr(self, "weights_") else None
        if states is None:
            table = self._encode_for_fit(*rows)
            self.net_ = self._own_net()
        else:
            self._learn_more_of_target(rows[1])
            table = self._encode_more(*rows)
        if validation is not None:
            table = with_validation(self, table, *validation)
        plan = self._plan_for(table.n_train, begun_with=None if states is None else len(states))
        warn_of_memory(self, self.net_, plan, n_rows=table.n_train, itemsize=table.x.itemsize)
        deadline = None if self.max_time is None else began + self.max_time
        members = self._members_for(table, plan, deadline=deadline)
        tensors = table.tensors(self._torch_device())
        if states is not None:
            if len(states) != len(members):
                raise ValueError(
                    f"n_members={self.n_members}: a warm start goes on with the {len(states)} members of the fit before; "
                    "set warm_start=False to begin anew."
                )
            members = [replace(m, start=state) for m, state in zip(members, states, strict=True)]
        else:
            members = members_in_time(self, tensors, members, deadline)
        with watching(self, plan.max_epochs, *rows[:2]) as watch:
            least_until = clock.now() + LEAST_SECONDS
            results = self._train(tensors, members, deadline, plan.max_epochs, watch, least_until)
            warn_of_haste(self.max_time, results)
            for _ in range(RETRIES if states is None else 0):
                retried = self._retried(members, results)
                if not retried:
                    break
                warnings.warn(
                    f"The automatic step size lr={results[0].lr:.4g} diverged; trying a quarter of it.",
                    ConvergenceWarning,
                    stacklevel=3,
                )
                members = retried
                results = self._train(tensors, members, deadline, plan.max_epochs, watch, least_until)
            self._take_results(results)
        self._learn_from_left_out(tensors, [members[i].validation_rows for i in counting(results)])

    def _retried(self, members: Sequence[Member], results: Sequence[MemberResult]) -> list[Member]:
        """What to train instead where an automatic step size let most members diverge; else nothing."""
        diverged = sum(r.stop_reason == "diverged" for r in results)
        if self.lr != "auto" or self.step_ratio is not None or 2 * diverged <= len(results):
            return []
        return [
            replace(m, lr=r.lr / 4, alpha=r.alpha, beta=r.beta) for m, r in zip(members, results, strict=True)
        ]

    def _train(
        self,
        table: TableTensors,
        members: Sequence[Member],
        deadline: float | None,
        max_epochs: int,
        watch: Watch,
        least_until: float,
    ) -> list[MemberResult]:
        training = self._training(table, members, keep_states=True, max_epochs=max_epochs, deadline=deadline)
        try:
            stop = watch.of(training)
            training.run(deadline=deadline, shorten=True, stop=stop, least_until=least_until)
            if stop is not None and (watch.is_stopped or stop()):
                training.stop()
        except KeyboardInterrupt:
            training.stop()
            if not keeps_best() or not any(r.weights is not None for r in training.results):
                raise
            warnings.warn(
                "Training was interrupted; the best weights so far are kept.",
                ConvergenceWarning,
                stacklevel=4,
            )
        return training.results

    def _train_one_epoch(self, X: Any, y: Any, sample_weight: Any) -> None:
        """One epoch on all rows given, from where training stands: what ``partial_fit`` does."""
        self._check_parameters()
        with ordinary_tensors(), threads_of(self.n_jobs):
            self._one_epoch(X, y, sample_weight)

    def _one_epoch(self, X: Any, y: Any, sample_weight: Any) -> None:
        goes_on = hasattr(self, "weights_")
        if goes_on:
            self._learn_more_of_target(y)
            table = self._encode_more(X, y, sample_weight)
        else:
            table = self._encode_for_fit(X, y, sample_weight, in_parts=True)
            self.net_ = self._own_net()
        rows = np.arange(len(table.target), dtype=np.int64)
        # What comes in parts tells by none of them how many rows there will be.
        n_members = 1 if self.n_members == "auto" else int(self.n_members)
        starts: list[MemberState | None] = list(self._states) if goes_on else [None] * n_members
        # A member that goes on has its own streams already, so that which seed it gets makes no difference.
        _, *member_seeds = self._seeds(len(starts))
        members = [
            replace(self._member(rows, rows[:0], seed), start=start)
            for seed, start in zip(member_seeds, starts, strict=True)
        ]
        training = self._training(
            table.tensors(self._torch_device()),
            members,
            keep_states=True,
            max_epochs=self._plan_for(len(rows)).max_epochs,
        )
        training.run(1)
        training.drop(range(len(members)))
        history = self.history_ if goes_on else None
        self._take_results(training.results)
        if history is not None:
            before = history["epoch"].max()
            fresh = self.history_.assign(epoch=self.history_["epoch"] + before)
            self.history_ = pd.concat([history, fresh], ignore_index=True)
            self.n_iter_ = self.best_epoch_ = int(before) + 1

    def _read(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[pd.DataFrame, Any, Weights | None]:
        """Check table, target and weights; rows of weight zero take no part in anything."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        frame = as_frame(self, X, reset=reset)
        weight = check_weights(sample_weight, len(frame))
        y = np.asarray(y) if not hasattr(y, "iloc") else y
        check_consistent_length(frame, y)
        if weight is not None and (weight == 0).any():
            present = weight > 0
            frame, y, weight = frame.loc[present], y[present], weight[present]
        return frame, y, weight

    def _encode_more(self, X: Any, y: Any, sample_weight: Any) -> EncodedTable:
        """Encode a table by the encoder and the target's scale that were fitted before, in the weights' type."""
        frame, y, weight = self._read(X, y, sample_weight, reset=False)
        target = self._encode_target(y)
        x = self.encoder_.encode(frame, self._dtype)
        judged = judged_of(self, frame, y, weight)
        return EncodedTable(x, target, self._row_weights(target, weight), weight, judged=judged)

    def _new_encoder(self) -> TableEncoder:
        """The encoder that a fit begins with: what ``encoder`` means, so that None and the default are one setting."""
        return TableEncoder() if self.encoder is None else clone(self.encoder)

    def _encode_for_fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, in_parts: bool = False
    ) -> EncodedTable:
        """Fit encoder and target, and encode both; ``in_parts`` says that more rows may follow."""
        frame, y, weight = self._read(X, y, sample_weight, reset=True)
        target = self._fit_target(y, weight)
        # An own module knows nothing of codes: it gets one output a level instead.
        encoder = self._new_encoder()
        self.encoder_ = encoder.set_params(embed=encoder.embed and self.module is None)
        self.encoder_.fit(frame, sample_weight=weight)
        self.schema_ = TableSchema.of_frame(frame)
        x = self.encoder_.encode(frame, np.float32 if in_parts else self._type_for(len(frame)))
        judged = judged_of(self, frame, y, weight)
        return EncodedTable(
            x,
            target,
            self._row_weights(target, weight),
            weight,
            judged=judged,
            sections=self.encoder_.sections,
            categories=self.encoder_.categories_,
        )

    def _type_for(self, n_rows: int) -> type[np.float32] | type[np.float64]:
        """Type of the weights of a fit on so many rows."""
        # Who asks for less than float32, or brings code or a device that may know no float64, gets what they ask for.
        is_plain = self.module is None and self.precision == "float32" and self._torch_device().type != "mps"
        return np.float64 if n_rows <= _FLOAT64_ROWS and is_plain else np.float32

    @property
    def _dtype(self) -> type[np.float32] | type[np.float64]:
        """Type of the weights, and of the tables that go with them."""
        return np.float64 if self.weights_.dtype == torch.float64 else np.float32

    def _own_net(self) -> Net:
        """The net for the table that was encoded."""
        return self._build_net(self.encoder_.sections, self.encoder_.categories_, self._out_features)

    def _training(
        self,
        table: TableTensors,
        members: Sequence[Member],
        net: Net | None = None,
        *,
        stacked: bool = False,
        keep_states: bool = False,
        progress: Sequence[MemberProgress] | None = None,
        max_epochs: int,
        deadline: float | None = None,
    ) -> Training:
        return Training(
            self.net_ if net is None else net,
            table,
            members,
            self._loss,
            batch_size=int(self.batch_size),
            max_epochs=max_epochs,
            method=self._method(),
            stacked=stacked,
            keep_states=keep_states,
            progress=progress,
            threads=n_threads(self.n_jobs),
            deadline=deadline,
        )

    # ------------------------------------------------------------------ predict

    def _outputs(self, X: Any) -> npt.NDArray[np.float64]:
        """Outputs of every member for a table, [P, n_samples, out]."""
        check_is_fitted(self, "weights_")
        return self._outputs_of(self.encoder_.encode(as_frame(self, X, reset=False), self._dtype))

    def _outputs_of(self, encoded: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Outputs of every member for a table that is encoded, [P, n_samples, out]."""
        rows = torch.from_numpy(np.ascontiguousarray(encoded)).to(self.weights_.device)
        with threads_of(self.n_jobs):
            return np.asarray(predicted(self.net_, self.weights_, rows).cpu().numpy())

    def _to_file(self) -> tuple[dict[str, Any], Tensors]:
        return to_plain(self)

    def _from_file(self, content: dict[str, Any], tensors: Tensors) -> None:
        restore(self, content, tensors)

    def _check_parameters(self, *, to_train: bool = True) -> None:
        """Raise a ValueError that names the parameter, its value and the remedy."""
        check_parameters(self)
        self._method()
        check_pure_numbers(self)
        if to_train:
            check_device(self)

    def __sklearn_tags__(self) -> Any:
        return takes_any_table(super().__sklearn_tags__())
