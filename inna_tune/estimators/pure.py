"""The pure numbers r, α̃ and ζ as parameters of an estimator: what goes together, and what they are where left open."""

import math
from typing import Any

from inna_tune.engine.calibrating import usual_friction
from inna_tune.optim.dynamics import DAMPING_RATIO, STABLE_STEP_RATIO
from inna_tune.optim.optimizers import PURE, record_of


def pure_numbers_of(estimator: Any) -> dict[str, float | None]:
    """Those that an estimator is set to, by name."""
    said = {name: getattr(estimator, name) for name in PURE}
    return {name: None if value is None else float(value) for name, value in said.items()}


def usual_numbers(estimator: Any, steps: float = math.inf) -> dict[str, float]:
    """What "auto" stands for, by name: the numbers that an estimator trains by where it is set to none.

    ``steps`` are those of an epoch.
    """
    return {
        "step_ratio": STABLE_STEP_RATIO,
        "friction": usual_friction(estimator._loss, steps, estimator.damping),
        "damping": DAMPING_RATIO,
    }


def check_pure_numbers(estimator: Any) -> None:
    """Check that an estimator's pure numbers go with each other, and with its other settings.

    Raises
    ------
    ValueError
        If one is given beside its natural counterpart, with an optimizer that has no use for it, or if no Newtonian
        damping has the damping ratio; the message names the parameters, their values and the remedy.
    """
    own = pure_numbers_of(estimator)
    given = {name: value for name, value in own.items() if value is not None}
    for name, value in given.items():
        natural = PURE[name]
        other = getattr(estimator, natural)
        if other != "auto":
            raise ValueError(
                f"{name}={value!r} and {natural}={other!r} are given, and each sets the other: leave {natural} at 'auto', "
                f"or {name} at None."
            )
        known = record_of(estimator.optimizer).pure
        if name not in known:
            which = f"takes {', '.join(known)} alone" if known else "does not step by the curvature"
            raise ValueError(
                f"{name}={value!r}: optimizer={estimator.optimizer!r} {which}; leave it at None, or set optimizer='inna'."
            )
    if "damping" in given and estimator.alpha != "auto":
        raise ValueError(
            f"damping={given['damping']!r}: the damping ratio is of friction and damping together, and "
            f"alpha={estimator.alpha!r} is none of its units; give friction in place of alpha, or beta in place of damping."
        )
    used = usual_numbers(estimator) | given
    if given.keys() & {"damping", "friction"} and estimator.beta == "auto":
        friction, damping = (
            f"{name}={used[name]!r}" + ("" if name in given else ", its usual value,")
            for name in ("friction", "damping")
        )
        if used["friction"] >= 2 * used["damping"]:
            raise ValueError(
                f"{friction} must be below twice {damping} or beta would not be positive; set both, or beta."
            )
