"""What PriorSampler costs: time a trial above its base sampler, at 500 finished trials.

    python studies/prior_overhead.py [--trials 500] [--repeats 5]

Both samplers ask for and are told the same number of trials in memory, in turn; the medians over the repeats are printed for
the last fifty trials, and written to ``results/prior_overhead.csv``. The priors are those of
``SearchSpace.inna`` and the learned ones that ship with the package, whose laws are mixtures.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd

from inna_tune import PriorSampler, SearchSpace
from inna_tune.space import Prior

HERE = Path(__file__).parent
BASES = {
    "TPESampler": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "RandomSampler": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def seconds_a_trial(sampler, space, n_trials, last=50):
    """Median time of ask, suggest and tell over the last trials."""
    study = optuna.create_study(sampler=sampler)
    taken = []
    for _ in range(n_trials):
        began = time.perf_counter()
        trial = study.ask()
        config = space.suggest(trial)
        study.tell(trial, (np.log(config["lr"]) + 1) ** 2 + abs(config["alpha"] - 0.2))
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[-last:]))


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {
        "by hand": SearchSpace.inna(curvature=20.0),
        "learned": Prior.shipped("classification").at(20.0)[0],
    }
    rows = []
    for base, make in BASES.items():
        for prior, space in spaces.items():
            with_it, without = [], []
            for seed in range(arguments.repeats):
                without.append(seconds_a_trial(make(seed), space, arguments.trials))
                sampler = PriorSampler(make(seed), space, seed=seed)
                with_it.append(seconds_a_trial(sampler, space, arguments.trials))
            above = np.median(np.array(with_it) - np.array(without))
            rows.append(
                {
                    "base": base,
                    "prior": prior,
                    "trials": arguments.trials,
                    "base_ms": 1e3 * np.median(without),
                    "above_ms": 1e3 * above,
                }
            )
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(HERE / "results" / "prior_overhead.csv", index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
