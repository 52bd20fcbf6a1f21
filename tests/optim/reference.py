"""INNA as its paper writes it."""

import numpy as np


def inna_path(gradient, start, lr, alpha, beta, n_steps):
    """INNA in the paper's own variables, phase psi."""
    theta, psi = np.array(start, dtype=float), (1 - alpha * beta) * np.array(start, dtype=float)
    path, velocities = [theta], [np.zeros_like(theta)]
    for _ in range(n_steps):
        pull = (alpha - 1 / beta) * theta + psi / beta
        theta, psi = theta - lr * (pull + beta * gradient(theta)), psi - lr * pull
        path.append(theta)
        velocities.append((1 / beta - alpha) * theta - psi / beta)
    return np.array(path), np.array(velocities)
