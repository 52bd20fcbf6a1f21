"""The settings under which what we take from other libraries works, whatever the caller has set for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import sklearn


@contextmanager
def plain_settings() -> Iterator[None]:
    """scikit-learn's own settings for what runs inside: its transformers give arrays, and know nothing of routing."""
    with sklearn.config_context(
        transform_output="default", enable_metadata_routing=False, array_api_dispatch=False
    ):
        yield
