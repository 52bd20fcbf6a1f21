"""A fitted estimator as a pickle that can be read on any machine."""

from typing import Any

from sklearn.base import BaseEstimator


class PickledOnCpu(BaseEstimator):  # type: ignore[misc]
    """An estimator whose pickles and copies hold their tensors on the CPU, so that no other device need be there.

    It predicts where its weights are, on the CPU then, and trains on the device that its parameter names.
    """

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        if "weights_" in state:
            state["weights_"] = state["weights_"].cpu()
        if "_states" in state:
            state["_states"] = [member.on_cpu() for member in state["_states"]]
        return state
