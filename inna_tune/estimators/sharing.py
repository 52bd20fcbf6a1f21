"""What estimators of other settings may share: an encoded table, a table filled up with zeros, a population."""

from collections.abc import Hashable
from typing import Any

from sklearn.base import BaseEstimator

from inna_tune.optim.optimizers import record_of


class SharingMixin(BaseEstimator):  # type: ignore[misc]
    """An estimator that says of itself with whom it shares what."""

    # What members of one population may differ in; all else they share.
    _member_parameters = frozenset(
        {
            "lr",
            "alpha",
            "beta",
            "step_ratio",
            "friction",
            "damping",
            "decay",
            "decay_power",
            "weight_decay",
            "dropout",
            "label_smoothing",
        }
        | {"early_stopping", "patience", "validation_fraction", "random_state", "callbacks"}
    )
    # What only training reads: a table is encoded alike whatever it is. For all else it is encoded anew.
    _training_parameters = _member_parameters | (
        {
            "hidden_layer_sizes",
            "block",
            "activation",
            "numeric_embedding",
            "linear_path",
            "n_members",
            "warm_start",
        }
        | {
            "optimizer",
            "optimizer_params",
            "scale_tensors",
            "longest_step",
            "gradient_clip",
            "averaging",
            "batch_size",
            "max_epochs",
            "max_time",
            "n_jobs",
        }
    )

    def _population_key(self) -> Hashable:
        """Estimators of one class whose keys are equal can train as one population."""
        shared = {k: v for k, v in self.get_params().items() if k not in self._member_parameters}
        return tuple((name, repr(value)) for name, value in sorted(shared.items()))

    def _encoding_key(self) -> tuple[tuple[str, str], ...]:
        """Estimators of one class whose keys are equal encode a table alike: it names all settings but training's."""
        found: dict[str, Any] = {
            name: value
            for name, value in self.get_params().items()
            if name.split("__")[0] not in self._training_parameters
        }
        # Tables know no more of a module than that there is one.
        found["module"] = found["module"] is not None
        return tuple((name, repr(value)) for name, value in sorted(found.items()))

    @property
    def _may_be_padded(self) -> bool:
        """Whether training is the same in a table that is filled up with columns of zeros.

        It is where every weight is stepped by itself, and nothing is measured in a direction drawn for all weights.
        """
        said: Any = self
        optimizer = record_of(said.optimizer)
        if said.module is not None or not optimizer.is_elementwise:
            return False
        return not optimizer.is_calibrated or "auto" not in (said.lr, said.alpha, said.beta)
