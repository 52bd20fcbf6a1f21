"""One metric, or several of which one is what a study maximises, named as scikit-learn's searches name them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from inna_tune.study.scoring import Scorer, resolve_scorer

SINGLE = "score"  # what the results of a metric are called that has no name
ENSEMBLE = "ensemble"  # what ``refit`` may be, beside true, false and a metric's name


@dataclass(frozen=True)
class Metrics:
    """What trials are scored by.

    Attributes
    ----------
    given : str, callable or None
        The objective as it was given.
    objective : str
        Name of the metric that is maximised; ``"score"`` where there is but one.
    scorers : dict of str to callable
        All of them, in their order.
    """

    given: Any
    objective: str
    scorers: dict[str, Scorer]

    @classmethod
    def of(
        cls, estimator: Any, scoring: Any, classes: npt.NDArray[Any] | None = None, *, refit: Any = False
    ) -> Self:
        """From what a search is given.

        Parameters
        ----------
        estimator : estimator
        scoring : str, callable, None, list, tuple or set of str, or dict of str to str or callable
        classes : ndarray, optional
            All labels, see `resolve_scorer`.
        refit : bool, str or callable
            Of several metrics the one that is maximised, by its name; False, "ensemble" or a function: the first.

        Raises
        ------
        ValueError
            If there is none, or two of a name, or ``refit`` does not say which one.
        """
        if not is_several(scoring):
            return cls(scoring, SINGLE, {SINGLE: resolve_scorer(estimator, scoring, classes)})
        given = _named(scoring)
        first = next(iter(given))
        is_chosen_later = callable(refit) or refit is False or (isinstance(refit, np.bool_) and not refit)
        if is_chosen_later or refit == ENSEMBLE:
            objective = first
        elif isinstance(refit, str) and refit in given:
            objective = refit
        else:
            raise ValueError(
                f"refit={refit!r}: of several metrics it must name the one that is maximised and refitted by: "
                f"{', '.join(map(repr, given))}; or be {ENSEMBLE!r}, False or a function of cv_results_, for the first."
            )
        scorers = {}
        for name, each in given.items():
            try:
                scorers[name] = resolve_scorer(estimator, each, classes)
            except ValueError as error:
                raise ValueError(f"scoring: the metric {name!r}: {error}") from None
        return cls(given[objective], objective, scorers)

    @property
    def are_several(self) -> bool:
        """Whether they were given by names."""
        return SINGLE not in self.scorers

    @property
    def scorer(self) -> Scorer:
        """The objective's."""
        return self.scorers[self.objective]

    @property
    def others(self) -> dict[str, Scorer]:
        """Those that are computed and not maximised."""
        return {name: scorer for name, scorer in self.scorers.items() if name != self.objective}


def is_several(scoring: Any) -> bool:
    """Whether ``scoring`` holds metrics by their names."""
    return isinstance(scoring, list | tuple | set | frozenset | Mapping)


def _named(scoring: Any) -> dict[str, Any]:
    """Metrics by name; a set's in the order of the alphabet, since its own differs from process to process."""
    if isinstance(scoring, Mapping):
        found = dict(scoring)
    else:
        listed = sorted(scoring, key=str) if isinstance(scoring, set | frozenset) else list(scoring)
        if not all(isinstance(each, str) for each in listed):
            raise ValueError(
                f"scoring={scoring!r} must hold names of scorers; give callables by name, scoring={{'name': callable}}."
            )
        if len(set(listed)) < len(listed):
            raise ValueError(f"scoring={scoring!r} names a metric twice.")
        found = {each: each for each in listed}
    if not found:
        raise ValueError(f"scoring={scoring!r} names no metric; None is the loss that the net is trained on.")
    for name in found:
        if not isinstance(name, str) or name in (SINGLE, ENSEMBLE):
            raise ValueError(
                f"scoring: a metric's name must be a text other than {SINGLE!r} and {ENSEMBLE!r}, got {name!r}."
            )
    return found
