r"""The continuous system behind INNA, as a reference, and the energy that falls along it.

:math:`\theta'' + \alpha\theta' + \beta\nabla^2 J(\theta)\theta' + \nabla J(\theta) = 0`, a heavy ball with viscous friction
:math:`\alpha` whose speed is damped through the Hessian by :math:`\beta` as well.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def energy(loss: Any, velocity: Any, alpha: Any, beta: Any, step_factors: Any = None) -> Any:
    r"""The energy :math:`E = (1+\alpha\beta)J(\theta) + \tfrac12\lVert u\rVert^2`.

    Along the continuous system it falls: :math:`dE/dt = -\alpha\lVert\theta'\rVert^2 - \beta\lVert\nabla J\rVert^2`.
    It is the paper's energy, whose :math:`(\alpha - 1/\beta)\theta + \psi/\beta` is :math:`-u`. With a step factor
    :math:`f_k` for each tensor, :math:`\lVert u\rVert^2` is :math:`\sum_k\lVert u_k\rVert^2/f_k`.

    Parameters
    ----------
    loss : float or Tensor
        :math:`J(\theta)`.
    velocity : array, Tensor, or list or tuple of them
        INNA's state :math:`u`, of one parameter or of all.
    alpha, beta : float or Tensor
    step_factors : float, array or Tensor, or list or tuple of them, optional
        As many as there are velocities.

    Returns
    -------
    float or Tensor

    Raises
    ------
    ValueError
        If velocities and factors differ in number.

    References
    ----------
    Castera, Bolte, Févotte, Pauwels (2021). An inertial Newton algorithm for deep learning. JMLR 22(134),
    section 4.
    """
    parts = velocity if isinstance(velocity, list | tuple) else [velocity]
    if step_factors is None:
        return (1 + alpha * beta) * loss + 0.5 * sum((part**2).sum() for part in parts)
    factors = step_factors if isinstance(step_factors, list | tuple) else [step_factors]
    if len(factors) != len(parts):
        raise ValueError(
            f"step_factors: {len(factors)} factors for {len(parts)} velocities; pass one for each"
        )
    return (1 + alpha * beta) * loss + 0.5 * sum(
        (part**2 / factor).sum() for part, factor in zip(parts, factors, strict=True)
    )


class Trajectory(NamedTuple):
    """Positions and velocities at given times; see `continuous_trajectory`."""

    times: NDArray[np.float64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]


def continuous_trajectory(
    gradient: Callable[[NDArray[np.float64]], ArrayLike],
    initial: ArrayLike,
    times: ArrayLike,
    *,
    alpha: float,
    beta: float,
    rtol: float = 1e-9,
    atol: float = 1e-12,
) -> Trajectory:
    r"""Solve the continuous system, which INNA approaches to first order as its step size goes to zero.

    :math:`\theta'' + \alpha\theta' + \beta\nabla^2 J(\theta)\theta' + \nabla J(\theta) = 0` as the first-order system
    :math:`\theta' = u - \beta\nabla J(\theta)`, :math:`u' = -\alpha u - (1-\alpha\beta)\nabla J(\theta)`, which
    needs no second derivative; :math:`u(0) = 0`, as INNA starts. After :math:`k` steps of size :math:`\gamma` INNA is
    near the solution at time :math:`k\gamma`.

    Parameters
    ----------
    gradient : callable
        :math:`\nabla J`, from an array of shape [d] to one of shape [d]; of a smooth :math:`J`, since across a kink
        no solver finishes.
    initial : array of shape [d]
        :math:`\theta(0)`.
    times : array of shape [T]
        Non-decreasing, from 0 on; the start is at time 0.
    alpha, beta : float
    rtol, atol : float
        Tolerances of scipy's solver.

    Returns
    -------
    Trajectory
        ``times`` [T], ``positions`` [T, d], ``velocities`` [T, d] (:math:`u`, not :math:`\theta'`).

    Raises
    ------
    RuntimeError
        If the solver fails, as when the trajectory goes to infinity.
    """
    from scipy.integrate import solve_ivp

    start = np.asarray(initial, dtype=np.float64)
    times = np.asarray(times, dtype=np.float64)

    def field(_: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        position, velocity = np.split(state, 2)
        slope = np.asarray(gradient(position), dtype=np.float64)
        return np.concatenate([velocity - beta * slope, -alpha * velocity - (1 - alpha * beta) * slope])

    solution = solve_ivp(
        field,
        (0.0, times[-1]),
        np.concatenate([start, np.zeros_like(start)]),
        # Explicit, for a trajectory that blows up: the implicit methods of scipy crawl towards it without end.
        method="DOP853",
        t_eval=times,
        rtol=rtol,
        atol=atol,
    )
    if not solution.success:
        raise RuntimeError(f"the continuous system could not be solved: {solution.message}")
    positions, velocities = np.split(solution.y, 2)
    return Trajectory(times, positions.T, velocities.T)
