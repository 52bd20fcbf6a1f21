"""What a comparison found, contender by contender, and in sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inna_tune.records.certainty import Gain

CONSTANT = "constant"


def ensemble_of(name: str) -> str:
    """What the ensemble of a contender's trials is called."""
    return f"{name}-ensemble"


@dataclass(frozen=True)
class Contender:
    """One model of a comparison.

    Attributes
    ----------
    name : str
        The optimizer, the baseline, ``NAME-ensemble`` of an optimizer's trials, or "constant": the most frequent class, or the
        mean.
    study : str or None
        Where its trials are.
    trials : dict of str to int
        How many there are in each state.
    seconds : float
        Of training, over all trials.
    cross_validated : float or None
        Best loss over the folds. The more trials, the more it flatters.
    scores : dict of str to float
        On the held-out rows, the loss first; means over the fits.
    low, high : float
        95% interval of that loss: of the choice of rows and the luck of training, see `resample_log_means`.
    against : Gain or None
        How the reference's loss compares with this one's: -0.1 says that the reference's is a tenth lower. The intervals of
        all contenders hold together with 95%.
    settings : dict
        Of the best trial.
    words : str
        What they mean.
    failed : str
        Why there is no score; empty where there is one.
    """

    name: str
    study: str | None
    trials: dict[str, int]
    seconds: float
    cross_validated: float | None
    scores: dict[str, float]
    low: float
    high: float
    against: Gain | None
    settings: dict[str, Any]
    words: str
    failed: str = ""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    task : str
    metric : str
        The loss.
    reference : str
        The contender that all others are compared with: INNA, where it takes part.
    n_trials, n_tuning_rows, n_held_out_rows : int
    n_fits : int
        Of each one's best settings. By one alone nothing is known of the luck of training, and nobody is clearly better.
    contenders : tuple of Contender
        The reference first, the constant last, its ensemble before that.
    """

    task: str
    metric: str
    reference: str
    n_trials: int
    n_tuning_rows: int
    n_held_out_rows: int
    contenders: tuple[Contender, ...]
    n_fits: int = 5

    @property
    def verdict(self) -> list[str]:
        """The comparison in sentences: one a contender, and what follows from all."""
        return list(_verdict(self))

    def summary(self) -> dict[str, Any]:
        """Summarize as plain data."""
        return {**asdict(self), "verdict": self.verdict}


def _verdict(found: Comparison) -> Iterator[str]:
    """One sentence a contender that was compared, and one for all."""
    name = found.reference
    reference = found.contenders[0]
    if reference.failed:
        yield f"{name} has no score: {reference.failed}."
        return
    beaten: list[str] = []
    lost_to: list[str] = []
    alike: list[str] = []
    for other in found.contenders[1:]:
        gain = other.against
        if gain is None or other.name == CONSTANT:
            continue
        clear = gain.is_clear and found.n_fits > 1
        between = f"95% interval {gain.low:+.1%} to {gain.high:+.1%}"
        if other.name != ensemble_of(name):  # which speaks for the same optimizer
            (alike if not clear else beaten if gain.change < 0 else lost_to).append(other.name)
        if clear:
            word = "below" if gain.change < 0 else "above"
            yield f"The held-out {found.metric} of {name} is {abs(gain.change):.1%} {word} that of {other.name} ({between})."
        else:
            yield (
                f"The held-out {found.metric} of {name} differs by {gain.change:+.1%} from that of {other.name} ({between}): "
                f"{found.n_held_out_rows} rows{'' if found.n_fits > 1 else ' and one fit of each'} cannot tell which is better."
            )
    yield from _advice(found, beaten, lost_to, alike)


def _advice(
    found: Comparison, beaten: Sequence[str], lost_to: Sequence[str], alike: Sequence[str]
) -> Iterator[str]:
    name = found.reference
    constant = found.contenders[-1].against
    if constant is not None and not (constant.is_clear and constant.change < 0):
        yield f"{name} is not clearly better than the same prediction for every row: there may be little to learn here."
    elif lost_to:
        yield f"{name} is not the best choice here: {_and(lost_to)} did clearly better."
    elif beaten and not alike:
        yield f"{name} is worth it here: clearly better than {_and(beaten)}."
    elif beaten:
        yield f"{name} is worth it here against {_and(beaten)}; against {_and(alike)} it makes no difference that shows."
    elif alike:
        yield f"Nothing speaks for or against {name} here: no difference to {_and(alike)} shows."


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
