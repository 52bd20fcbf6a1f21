"""INNA's settings in words that a person who knows SGD understands."""

import math

from inna_tune.optim.dynamics import pure_numbers

# Two settings within this factor of each other are called near.
_NEAR = 1.25


def describe_settings(lr: float, alpha: float, beta: float, curvature: float | None = None) -> str:
    r"""Say in one sentence what INNA does with these hyper-parameters.

    The sentence gives the effective step :math:`\gamma/\alpha`, the momentum :math:`1-\alpha\gamma` and, where a curvature
    is known, the damping ratio :math:`\zeta` of a direction of that curvature, and ends with the nearest optimizer that has a
    name. What a gradient does at once, beside what it does in all, is :math:`\alpha\beta`: 1 is plain gradient descent;
    :math:`\beta = \gamma` is SGD with momentum (heavy ball); :math:`\beta = (2-\alpha\gamma)\gamma` is Nesterov's variant.
    Two are near if their :math:`\beta` differ by a factor of at most 1.25.

    Parameters
    ----------
    lr, alpha, beta : float
        Step size γ > 0, viscous friction α ≥ 0, Newtonian damping β > 0.
    curvature : float, optional
        Largest Hessian eigenvalue λ, positive; adds the damping ratio, and up to which multiple of λ the step is stable.

    Returns
    -------
    str
        One line, without a full stop.

    Raises
    ------
    ValueError
        If a number is not finite, or `lr`, `beta` or `curvature` is not positive, or `alpha` is negative.

    See Also
    --------
    inna_tune.optim.to_sgd, inna_tune.optim.to_qhm : the exact maps.

    Examples
    --------
    >>> describe_settings(0.1, 0.5, 0.1)
    'effective step 0.2, momentum 0.95: SGD with momentum'
    >>> print(describe_settings(0.21, 0.16, 0.23, curvature=10.0))  # doctest: +NORMALIZE_WHITESPACE
    effective step 1.31, momentum 0.966, damping ratio 0.39 (underdamped),
    stable up to 7.49 times the curvature at the start: near SGD with momentum
    """
    given = {"lr": lr, "alpha": alpha, "beta": beta} | ({} if curvature is None else {"curvature": curvature})
    for name, value in given.items():
        if not math.isfinite(value) or value < 0 or (value == 0 and name != "alpha"):
            wanted = "at least 0" if name == "alpha" else "positive"
            raise ValueError(f"{name}={value!r} must be {wanted} and finite")
    momentum = 1 - alpha * lr
    words = [
        f"effective step {lr / alpha:.3g}"
        if alpha > 0
        else "no friction, so an effective step without bound",
        f"momentum {momentum:.3g}",
    ]
    if curvature is not None:
        pure = pure_numbers(lr, alpha, beta, curvature)
        words.append(f"damping ratio {pure.damping_ratio:.2g} ({_damping(pure.damping_ratio)})")
        words.append(_stability(pure.stable_step_ratio))
    return f"{', '.join(words)}: {_relative(lr, alpha, beta, momentum)}"


def _damping(ratio: float) -> str:
    if ratio < 1 / _NEAR:
        return "underdamped"
    return "overdamped" if ratio > _NEAR else "near critical"


def _stability(ratio: float) -> str:
    if ratio == 0:
        return "unstable in flat directions"
    if math.isinf(ratio):
        return "stable at every curvature"
    return f"stable up to {ratio:.3g} times the curvature at the start"


def _relative(lr: float, alpha: float, beta: float, momentum: float) -> str:
    if momentum <= 0:
        return "too much friction for any momentum"
    share = alpha * beta
    if math.isclose(share, 1, rel_tol=1e-9):
        return f"plain gradient descent with step {lr * beta:.3g}"
    heavy, nesterov = lr, (1 + momentum) * lr
    if math.isclose(beta, heavy, rel_tol=1e-9):
        return "SGD with momentum"
    if math.isclose(beta, nesterov, rel_tol=1e-9):
        return "SGD with Nesterov momentum"
    if _near(share, 1):
        return f"near plain gradient descent with step {lr * beta:.3g}"
    if share > 1:
        return "more of each gradient at once than in all, the velocity takes some back"
    # With little momentum the two lie close to each other: the closer one is named.
    if _near(beta, heavy) and abs(math.log(beta / heavy)) <= abs(math.log(beta / nesterov)):
        return "near SGD with momentum"
    if _near(beta, nesterov):
        return "near SGD with Nesterov momentum"
    if beta < heavy:
        return "less of each gradient at once than SGD with momentum"
    if beta < nesterov:
        return "between SGD with momentum and Nesterov's variant"
    return "more of each gradient at once than SGD with Nesterov momentum"


def _near(one: float, other: float) -> bool:
    return 1 / _NEAR <= one / other <= _NEAR
