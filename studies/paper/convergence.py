r"""How INNA converges: the energy that falls, the sublinear rate, and steps that go to zero as slowly as the theory allows.

Three experiments, in float64:

1. The energy E = (1+αβ)J(θ) + ½‖u‖² along the continuous system (scipy's solver) and along INNA at steps of 1e-2, 1e-3 and
   1e-4, on the Rosenbrock function from (-1.2, 1): the theory has it fall along the system, and INNA approaches that as the
   step goes to zero.
2. The rate: along the system, min over s ≤ t of ‖∇J‖² is at most E₀/(βt), since β∫‖∇J‖² ≤ E₀ where J ≥ 0. On Rosenbrock, and on
   J(θ) = Σ θᵢ⁴, which has no curvature at its minimum and so no linear rate; the slope is measured in the last decade of time.
3. Mini-batches of a non-smooth problem: the mean absolute deviation J(θ) = mean |xᵢᵀθ − yᵢ| over 500 rows, batches of 10, with
   steps γ₀/√(k+1), γ₀/(1+ln(1+k))², which is o(1/log k) as the theory asks and falls more slowly than any power, and a
   constant step, which the theory does not cover. Each over 20 seeds.

    python studies/paper/convergence.py            # writes convergence.csv, convergence.md and convergence.png beside

Castera, Bolte, Févotte, Pauwels (2021), JMLR 22(134): section 4 (the system and its energy), theorem 3 (almost sure
convergence for steps that are o(1/log k) and not summable), section 5 (the rate).
"""

from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from inna_tune.optim import INNA, continuous_trajectory, energy

HERE = Path(__file__).parent
ALPHA, BETA = 0.5, 0.1
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73")


def rosenbrock(theta):
    """The bent valley; its minimum 0 lies at (1, 1)."""
    return 100 * (theta[1] - theta[0] ** 2) ** 2 + (1 - theta[0]) ** 2


def quartic(theta):
    """Flat at its minimum, 0."""
    return (theta**4).sum()


PROBLEMS = {"Rosenbrock": (rosenbrock, [-1.2, 1.0]), "sum of fourth powers": (quartic, [1.0, -0.7, 0.4])}


def slope_of(loss):
    """The gradient of a loss, numpy to numpy."""

    def gradient(theta):
        point = torch.tensor(theta, requires_grad=True)
        return torch.autograd.grad(loss(point), point)[0].numpy()

    return gradient


def along_system(loss, start, times):
    """Energy, loss and gradient norm at the given times of the continuous system."""
    gradient = slope_of(loss)
    path = continuous_trajectory(gradient, start, times, alpha=ALPHA, beta=BETA, rtol=1e-8)
    losses = np.array([loss(torch.tensor(p)).item() for p in path.positions])
    energies = [
        float(energy(value, velocity, ALPHA, BETA))
        for value, velocity in zip(losses, path.velocities, strict=True)
    ]
    return np.array(energies), losses, np.array([np.linalg.norm(gradient(p)) for p in path.positions])


def along_inna(loss, start, step, duration):
    """Energy and gradient norm before every step of INNA; time is steps times their size."""
    point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = INNA([point], lr=step, alpha=ALPHA, beta=BETA)
    energies, norms = [], []
    for _ in range(round(duration / step)):
        optimizer.zero_grad()
        value = loss(point)
        value.backward()
        state = optimizer.state[point]
        # What the fused kernel keeps is -u over a scalar that it carries along.
        velocity = -state["scale"] * state["momentum"] if state else torch.zeros_like(point)
        energies.append(float(energy(value.item(), velocity, ALPHA, BETA)))
        norms.append(point.grad.norm().item())
        optimizer.step()
    return np.array(energies), np.array(norms)


def rates():
    """Bound and smallest squared gradient by time, and the slope of the latter in the last decade: a row a problem."""
    times = np.concatenate([[0.0], np.geomspace(0.1, 100.0, 300)])
    rows, curves = [], {}
    for name, (loss, start) in PROBLEMS.items():
        energies, _, norms = along_system(loss, start, times)
        smallest = np.minimum.accumulate(norms**2)[1:]
        bound = energies[0] / (BETA * times[1:])
        # Below this the solver's own tolerance is what is seen.
        seen = (times[1:] >= 10.0) & (smallest > 1e-20)
        slope = (
            np.polyfit(np.log(times[1:][seen]), np.log(smallest[seen]), 1)[0] if seen.sum() > 10 else np.nan
        )
        curves[name] = (times[1:], smallest, bound)
        rows.append(
            {
                "problem": name,
                "largest of min ||grad||^2 over its bound": (smallest / bound).max(),
                "slope from t = 10 to 100": slope,
                "energy rose by at most": np.diff(energies).max(),
            }
        )
    return pd.DataFrame(rows), curves


LAWS = {
    "1/sqrt(k+1)": lambda k: (k + 1) ** -0.5,
    "1/(1+ln(1+k))^2": lambda k: (1 + np.log1p(k)) ** -2.0,
    "constant": lambda k: 1.0,
}


@cache
def deviations(seed, rows=500):
    """Rows, targets, and the least mean absolute deviation, found as a linear program."""
    from scipy.optimize import linprog
    from scipy.sparse import bmat, identity

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5))
    y = x @ rng.normal(size=5) + rng.laplace(size=rows)
    eye = identity(rows)
    found = linprog(
        np.concatenate([np.zeros(5), np.full(rows, 1 / rows)]),
        A_ub=bmat([[x, -eye], [-x, -eye]]),
        b_ub=np.concatenate([y, -y]),
        bounds=[(None, None)] * 5 + [(0, None)] * rows,
    )
    return x, y, found.fun


def stochastic(law, seed, epochs=200, size=10, first=0.05):
    """Excess of the full loss over its minimum after every epoch, of INNA on mini-batches."""
    x, y, least = deviations(seed)
    x, y = torch.tensor(x), torch.tensor(y)
    theta = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = INNA([theta], lr=first, alpha=ALPHA, beta=BETA)
    generator = torch.Generator().manual_seed(seed)
    excess, k = [], 0
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=generator).split(size):
            optimizer.param_groups[0]["lr"] = first * law(k)
            optimizer.zero_grad()
            (x[batch] @ theta - y[batch]).abs().mean().backward()
            optimizer.step()
            k += 1
        with torch.no_grad():
            excess.append((x @ theta - y).abs().mean().item() - least)
    return np.array(excess)


def main():
    """Run, print, write."""
    loss, start = PROBLEMS["Rosenbrock"]
    duration = 20.0
    times = np.linspace(0.0, duration, 400)
    exact, _, _ = along_system(loss, start, times)
    steps = {step: along_inna(loss, start, step, duration)[0] for step in (1e-2, 1e-3, 1e-4)}
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    axes[0].plot(times, exact, color=COLOURS[0], label="continuous system", lw=2.5, alpha=0.5)
    rises = []
    for colour, (step, energies) in zip(COLOURS[1:], steps.items(), strict=True):
        axes[0].plot(
            np.arange(len(energies)) * step, energies, color=colour, lw=1, label=f"INNA, step {step:g}"
        )
        at = np.interp(times, np.arange(len(energies)) * step, energies)
        rises.append(
            {
                "step": step,
                "share of steps that raise the energy": float((np.diff(energies) > 0).mean()),
                "largest distance from the system, of the energy at the start": np.abs(at - exact).max()
                / exact[0],
            }
        )
    axes[0].set(title="Energy, Rosenbrock", xlabel="time (steps × step size)", ylabel="E", yscale="log")
    axes[0].legend(frameon=False, fontsize=8)
    table, curves = rates()
    for colour, (name, (t, smallest, bound)) in zip(COLOURS[1:], curves.items(), strict=False):
        axes[1].plot(t, np.maximum(smallest, 1e-24), color=colour, label=name)
        axes[1].plot(t, bound, color=colour, ls=":", label="its bound E₀/(βt)")
    axes[1].set(
        title="Rate along the system", xlabel="time", ylabel="min ‖∇J‖² so far", xscale="log", yscale="log"
    )
    axes[1].legend(frameon=False, fontsize=8)
    final = []
    for colour, (name, law) in zip(COLOURS[1:], LAWS.items(), strict=True):
        runs = np.stack([stochastic(law, seed) for seed in range(20)])
        epochs = np.arange(1, runs.shape[1] + 1)
        axes[2].plot(epochs, np.median(runs, 0), color=colour, label=name)
        axes[2].fill_between(epochs, *np.quantile(runs, [0.25, 0.75], axis=0), color=colour, alpha=0.2, lw=0)
        ends = {f"after {n} epochs": np.median(runs[:, n - 1]) for n in (10, 50, 200)}
        final.append({"steps": name, **ends})
    axes[2].set(
        title="Mini-batches of mean |xᵀθ − y|",
        xlabel="epochs",
        ylabel="excess of the full loss",
        xscale="log",
        yscale="log",
    )
    axes[2].legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "convergence.png", dpi=110)
    lines = []
    for title, frame in (
        ("Energy along INNA (Rosenbrock, 20 units of time)", pd.DataFrame(rises)),
        ("The rate along the continuous system", table),
        ("Mini-batches of a non-smooth loss: median excess over 20 seeds", pd.DataFrame(final)),
    ):
        lines += [
            f"**{title}**",
            "",
            "| " + " | ".join(frame.columns) + " |",
            "|" + "---|" * len(frame.columns),
        ]
        lines += [
            "| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row) + " |"
            for row in frame.itertuples(index=False)
        ]
        lines.append("")
    (HERE / "convergence.md").write_text("\n".join(lines).rstrip() + "\n")
    pd.DataFrame(final).to_csv(HERE / "convergence.csv", index=False, float_format="%.6g")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
