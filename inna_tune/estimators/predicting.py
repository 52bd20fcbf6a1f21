"""What whoever predicts values is to scikit-learn."""

from typing import Any

from sklearn.base import RegressorMixin


class PredictingMixin(RegressorMixin):  # type: ignore[misc]
    """A regressor of scikit-learn's, of one target or several."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
