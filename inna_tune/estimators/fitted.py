"""An estimator's fitted state: what training brought, and a pickle of it that any machine reads."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from inna_tune.engine import MemberResult, MemberState, as_arrays, as_tensors
from inna_tune.engine.members import who_counts
from inna_tune.estimators.watching import CallbackSupportMixin

# What is kept of every member.
_KEPT = (
    *("lr", "alpha", "beta", "curvature"),
    *("best_epoch", "best_loss", "epochs", "stop_reason"),
    "step_factors",
)


class DivergenceError(ValueError):
    """Training left the finite numbers before the end of its first epoch."""


def counting(results: Sequence[MemberResult]) -> list[int]:
    """Places of the results of those that are averaged, see `inna_tune.engine.members.who_counts`."""
    counts = who_counts(results, (r.weights is not None for r in results))
    return [i for i, is_one in enumerate(counts) if is_one]


def _history_of(results: Sequence[MemberResult]) -> pd.DataFrame:
    """The epochs of members, one below the other."""
    # NOTE: made of lists at once, since a frame a member and their concatenation take a tenth of a small fit.
    lengths = [len(r.history["epoch"]) for r in results]
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for r in results for name in r.history):
        columns[name] = [
            value
            for r, length in zip(results, lengths, strict=True)
            for value in r.history.get(name, [math.nan] * length)
        ]
    columns["epoch"] = np.array(columns["epoch"], dtype=int)
    columns["member"] = np.repeat(np.arange(len(results)), lengths)
    stopped = [""] * sum(lengths)
    for r, end in zip(results, np.cumsum(lengths), strict=True):
        stopped[end - 1] = r.stop_reason
    return pd.DataFrame(columns | {"stopped": stopped})


class FittedMixin(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that becomes fitted by the results of its members.

    Its pickles and copies hold their tensors on the CPU, so that no other device need be there, and as numpy's arrays, so that
    skops can keep it. It predicts where its weights are, on the CPU then, and trains on the device that its parameter names.
    """

    weights_: torch.Tensor
    history_: pd.DataFrame
    members_: list[dict[str, Any]]
    best_epoch_: int
    n_iter_: int
    _states: list[MemberState]

    def _take_results(self, results: Sequence[MemberResult]) -> None:
        """Keep the members that count."""
        if not any(r.weights is not None for r in results):
            r = results[0]
            raise DivergenceError(
                f"Training diverged in the first epoch with lr={r.lr:.4g}, alpha={r.alpha:.4g}, beta={r.beta:.4g}. "
                "Lower lr, or leave lr, alpha and beta at 'auto'."
            )
        good = counting(results)
        diverged = sum(r.stop_reason == "diverged" for r in results)
        if diverged:
            what = (
                f"{diverged} of {len(results)} nets diverged and are left out."
                if len(good) <= len(results) - diverged
                else "Training diverged before it ended; the best weights before that are kept."
            )
            warnings.warn(f"{what} Lower lr to train longer.", ConvergenceWarning, stacklevel=4)
        self._keep([results[i] for i in good])

    def _keep(self, good: Sequence[MemberResult]) -> None:
        """Become what is fitted by members that have weights."""
        self.weights_ = torch.stack([r.weights for r in good if r.weights is not None])
        self.members_ = [{name: getattr(r, name) for name in _KEPT} for r in good]
        self._count_epochs()
        self.history_ = _history_of(good)
        # A member that diverged goes on, if it is told to, from its best weights at rest.
        self._states = [r.state if r.state is not None else r.at_rest() for r in good]

    def _take_members_of(self, other: "FittedMixin") -> None:
        """Have the members of another fit of these settings to these rows beside one's own."""
        n_own, spent = len(self.members_), self.history_["seconds"].max()
        more = other.history_.assign(
            member=other.history_["member"] + n_own, seconds=other.history_["seconds"] + spent
        )
        self.history_ = pd.concat([self.history_, more], ignore_index=True)
        self.weights_ = torch.cat([self.weights_, other.weights_])
        self.members_, self._states = self.members_ + other.members_, self._states + other._states
        self._count_epochs()

    def _alone(self, member: int) -> None:
        """Have one of its members, and no other."""
        self.weights_, self.members_ = self.weights_[member : member + 1], [self.members_[member]]
        own = self.history_[self.history_["member"] == member]
        self.history_ = own.assign(member=0).reset_index(drop=True)
        self._states = [self._states[member]]
        self._count_epochs()

    def _count_epochs(self) -> None:
        """The epochs of the members, over all of them."""
        self.best_epoch_ = max(member["best_epoch"] for member in self.members_)
        self.n_iter_ = max(member["epochs"] for member in self.members_)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        if "weights_" in state:
            state["weights_"] = as_arrays(state["weights_"])
        if "history_" in state:
            state["history_"] = {name: column.to_numpy() for name, column in state["history_"].items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "weights_" in state:
            state["weights_"] = as_tensors(state["weights_"])
        if "history_" in state:
            state["history_"] = pd.DataFrame(state["history_"])
        super().__setstate__(state)
