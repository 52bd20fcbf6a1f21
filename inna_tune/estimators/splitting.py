"""Seeds of a fit, and the rows that early stopping watches."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

Rows = npt.NDArray[np.int64]

# Below this many rows a tenth of them is too few to tell one epoch from another (on iris twelve rows chose the fourth
# epoch, at 71% accuracy where the last has 95%): train to the end.
_MIN_ROWS_FOR_EARLY_STOPPING = 200


def draw_seeds(random_state: Any, count: int) -> list[int]:
    """Seeds from what scikit-learn calls a random state; numpy's global stream is never touched."""
    state = random_state
    if isinstance(state, np.random.RandomState):
        state = int(state.randint(2**31 - 1))
    elif isinstance(state, np.random.Generator):
        state = int(state.integers(2**31 - 1))
    return [int(word) for word in np.random.SeedSequence(state).generate_state(count)]


def split_off(target: npt.NDArray[Any], fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on and rows to watch, with every class among the latter where there are rows enough.

    Tables of fewer than 200 rows are not split.
    """
    rows = np.arange(len(target), dtype=np.int64)
    if len(rows) < _MIN_ROWS_FOR_EARLY_STOPPING:
        return rows, rows[:0]
    stratify = None
    n_validation = int(np.ceil(fraction * len(rows)))
    if target.ndim == 1:
        counts = np.bincount(target)
        if counts[counts > 0].min() >= 2 and n_validation >= (counts > 0).sum():
            stratify = target
    train, validation = train_test_split(rows, test_size=n_validation, random_state=seed, stratify=stratify)
    return np.sort(train), np.sort(validation)
