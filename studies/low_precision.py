"""What float16 and bfloat16 weights cost, and what a float32 velocity and the kept remainders bring back.

A net 64-128-10 learns scikit-learn's digits for 1,000 minibatch steps of INNA. Each run computes its gradients in
float64 at its own weights and rounds them to the dtype of the weights, so all that differs is how the optimizer stores
and rounds. The run all in float64 is the reference.

    python studies/low_precision.py            writes studies/results/low_precision.csv
    python studies/low_precision.py --quick    fewer steps, prints only
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch.func import functional_call

from inna_tune.optim import INNA

RESULTS = Path(__file__).parent / "results" / "low_precision.csv"
SETTINGS = {
    "default": {"lr": 0.1, "alpha": 0.5, "beta": 0.1},
    "small step": {"lr": 0.01, "alpha": 0.5, "beta": 0.1},
    "small beta": {"lr": 0.01, "alpha": 0.5, "beta": 0.02},
}


class PlainStep:
    """The velocity form with the rounding of one's choice, to compare with."""

    def __init__(self, params, *, lr, alpha, beta, velocity_dtype=None, compensated=False):
        self.params, self.lr, self.alpha, self.beta = params, lr, alpha, beta
        self.velocities = [torch.zeros_like(p, dtype=velocity_dtype) for p in params]
        self.remainders = [torch.zeros_like(p) if compensated else None for p in params]

    @torch.no_grad()
    def step(self):
        """One step; Kahan's sum where compensated."""
        for p, u, remainder in zip(self.params, self.velocities, self.remainders, strict=True):
            g = p.grad.to(u.dtype)
            change = self.lr * (u - self.beta * g)
            if remainder is None:
                p.add_(change.to(p.dtype))
            else:
                change += remainder
                before = p.clone()
                p.add_(change.to(p.dtype))
                remainder.copy_(change - (p - before))
            u.mul_(1 - self.alpha * self.lr).sub_(g, alpha=self.lr * (1 - self.alpha * self.beta))

    def state_bytes(self):
        """Bytes kept a weight."""
        return self.velocities[0].element_size() + (0 if self.remainders[0] is None else 2)


class OurStep(INNA):
    """INNA, with the bytes it keeps a weight."""

    def state_bytes(self):
        """Bytes kept a weight."""
        state = next(iter(self.state.values()))
        return sum(value.element_size() for value in state.values() if torch.is_tensor(value))


VARIANTS = {
    "all in the weights' dtype": PlainStep,
    "Kahan's sum": lambda p, **s: PlainStep(p, compensated=True, **s),
    "float32 velocity": lambda p, **s: PlainStep(p, velocity_dtype=torch.float32, **s),
    "float32 velocity, Kahan's sum": lambda p, **s: PlainStep(
        p, velocity_dtype=torch.float32, compensated=True, **s
    ),
    "INNA": OurStep,
}


def train(make, dtype, settings, steps):
    """Weights after training, the loss over all rows, and the optimizer."""
    features, target = load_digits(return_X_y=True)
    features, target = torch.as_tensor(features) / 16, torch.as_tensor(target)
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Tanh(), torch.nn.Linear(128, 10)).double()
    # Every run starts from weights that bfloat16 and float16 hold exactly.
    start = {
        name: (torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5).bfloat16().half()
        for name, p in net.named_parameters()
    }
    params = {name: torch.nn.Parameter(value.to(dtype)) for name, value in start.items()}
    optimizer = make(list(params.values()), **settings)

    def loss_on(rows):
        wide = {name: p.detach().double().requires_grad_() for name, p in params.items()}
        loss = torch.nn.functional.cross_entropy(functional_call(net, wide, (features[rows],)), target[rows])
        return loss, wide

    for _ in range(steps):
        loss, wide = loss_on(torch.randint(len(target), (64,), generator=generator))
        for p, grad in zip(params.values(), torch.autograd.grad(loss, list(wide.values())), strict=True):
            p.grad = grad.to(dtype)
        optimizer.step()
    loss, wide = loss_on(slice(None))
    weights = torch.cat([p.detach().flatten() for p in wide.values()])
    begin = torch.cat([value.double().flatten() for value in start.values()])
    return weights, begin, loss.item(), optimizer


def main():
    """Run every variant and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    steps = 50 if quick else 1000
    rows = []
    for setting, numbers in SETTINGS.items():
        exact, begin, exact_loss, _ = train(PlainStep, torch.float64, numbers, steps)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for variant, make in VARIANTS.items():
                if dtype is torch.float32 and variant not in ("all in the weights' dtype", "INNA"):
                    continue
                weights, _, loss, optimizer = train(make, dtype, numbers, steps)
                rows.append(
                    {
                        "setting": setting,
                        **numbers,
                        "steps": steps,
                        "weights": str(dtype).removeprefix("torch."),
                        "variant": variant,
                        "state_bytes_per_weight": optimizer.state_bytes(),
                        "relative_error": f"{((weights - exact).norm() / (exact - begin).norm()).item():.2e}",
                        "loss": f"{loss:.5f}",
                        "loss_float64": f"{exact_loss:.5f}",
                    }
                )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        table.to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
