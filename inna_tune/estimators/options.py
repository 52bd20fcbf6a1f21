"""Options of the optimizer as parameters of the estimator, so that a search reaches them."""

from collections.abc import Mapping
from typing import Any, Self

from sklearn.base import BaseEstimator

_PREFIX = "optimizer__"


class OptimizerOptions(BaseEstimator):  # type: ignore[misc]
    """An estimator whose ``optimizer_params``, a mapping, can be set one by one."""

    optimizer_params: Mapping[str, Any] | None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """As in scikit-learn; what ``optimizer_params`` holds comes under the names ``optimizer__NAME``, too."""
        params: dict[str, Any] = super().get_params(deep)
        if deep and isinstance(self.optimizer_params, Mapping):
            params |= {f"{_PREFIX}{name}": value for name, value in self.optimizer_params.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """As in scikit-learn; ``optimizer__NAME`` sets one of ``optimizer_params``, so that it can be searched over."""
        own = {name: params.pop(name) for name in list(params) if name.startswith(_PREFIX)}
        super().set_params(**params)
        if own:
            fresh = {name.removeprefix(_PREFIX): value for name, value in own.items()}
            self.optimizer_params = {**(self.optimizer_params or {}), **fresh}
        return self
