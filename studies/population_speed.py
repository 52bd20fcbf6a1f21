"""How fast a population trains: against the machine's own products, against peers, and as its members leave.

Everything takes turns in one run, in an order drawn anew each round, so that what else the machine does falls on all
alike; every ratio is a median over the rounds of ratios within a round.

(a) Steps of training against the members that are stacked. Operations are those of the matrix products (twice the
    multiply-adds of the forward pass, of every weight gradient, and of every input gradient but the first layer's); their
    rate is set against the best that large float32 products reach in the same round. ``share_of_products`` sets the time
    of the step's products alone, as torch's ``bmm`` makes them, against the time of the step: how much of it is not them.
(b) Trials of InnaSearchCV beside OptunaSearchCV over skorch and over scikit-learn's MLPClassifier: the same net, rows,
    folds, epochs, batch size and number of trials, three floats drawn by a random sampler, no pruning, no early stopping,
    no refit. The peers are handed standardised float32; ours encodes each fold, and scores at the rungs as it always does.
    And both as they come: InnaSearchCV(InnaClassifier()) with its own space, pruner and number of nets beside a skorch net of
    the same widths, else by its own defaults (10 epochs of SGD, a fifth held out).
(c) A population of which half leave, again and again, beside a fresh one of as many members.

Needs ``pip install 'inna-tune[studies]'``.

    python studies/population_speed.py             writes studies/results/population_speed.csv and .png
    python studies/population_speed.py --quick     a round, fewer trials, prints only
    python studies/population_speed.py --device cuda
"""

import argparse
import inspect
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib
import optuna
import pandas as pd
import torch
from optimizer_speed import machine
from optuna.distributions import FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna_integration import OptunaSearchCV
from population_steps import (
    Problem,
    Timer,
    epoch,
    large_products,
    leave,
    operations,
    population,
    problems,
    step_products,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from torch import nn

from inna_tune import InnaClassifier, InnaSearchCV
from inna_tune.space import LogUniform, SearchSpace, Uniform

matplotlib.use("agg")
import matplotlib.pyplot as plt

# The peers' net and nothing else: the estimators' own defaults do more.
PLAIN = {
    "activation": "relu",
    "numeric_embedding": "none",
    "dropout": 0.0,
    "averaging": None,
    "decay": "constant",
}
RESULTS = Path(__file__).parent / "results" / "population_speed.csv"
OURS, SKORCH, MLP = "InnaSearchCV", "OptunaSearchCV, skorch", "OptunaSearchCV, MLPClassifier"
OURS_PLAIN, SKORCH_PLAIN = f"{OURS}, as it comes", f"{SKORCH} as it comes"
# Ours of the same kind, which each is set beside.
COUNTERPARTS = dict.fromkeys((OURS, SKORCH, MLP), OURS) | dict.fromkeys(
    (OURS_PLAIN, SKORCH_PLAIN), OURS_PLAIN
)
FOLDS = 3
SHARE_GOAL, SHARE_MEMBERS = 0.6, 32
RATIO_GOALS = [
    *[("digits", SKORCH, 8.0), ("synthetic", SKORCH, 3.0), ("digits", MLP, 3.0)],
    *[("digits", SKORCH_PLAIN, 1.0), ("synthetic", SKORCH_PLAIN, 1.0)],
]

# What each search draws. All of it is stable: a net that diverges is cheap to one method and not to another.
SPACE = {"lr": LogUniform(0.01, 0.05), "alpha": Uniform(0.3, 0.9), "beta": LogUniform(0.05, 0.15)}
SKORCH_SPACE = {
    "optimizer__lr": FloatDistribution(1e-3, 2e-2, log=True),
    "optimizer__momentum": FloatDistribution(0.5, 0.9),
    "optimizer__weight_decay": FloatDistribution(1e-6, 1e-3, log=True),
}
MLP_SPACE = {
    "learning_rate_init": FloatDistribution(1e-3, 2e-2, log=True),
    "momentum": FloatDistribution(0.5, 0.9),
    "alpha": FloatDistribution(1e-6, 1e-3, log=True),
}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    members : sizes of the populations
    rounds : of everything
    turns : rounds of (a) and (c) within each of them, being so much shorter than those of (b)
    seconds : that a timing of (a) lasts, at least
    epochs, trials : of the searches
    """

    members: tuple[int, ...]
    rounds: int
    turns: int
    seconds: float
    epochs: int
    trials: int


FULL = Size((1, 2, 4, 8, 16, 32, 64), rounds=3, turns=3, seconds=0.1, epochs=12, trials=16)
QUICK = Size((1, 8, 32), rounds=1, turns=2, seconds=0.02, epochs=4, trials=4)


# ---------------------------------------------------------------------- (b) searches


class Net(nn.Sequential):
    """The peers' net, as one writes it."""

    def __init__(self, widths: list[int]) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        super().__init__(*layers[:-1])


def searches(
    problem: Problem, size: Size, device: torch.device, batch: str | int
) -> dict[str, Callable[[int], object]]:
    """The searches, each a function of its seed that returns the study."""
    cv = KFold(FOLDS, shuffle=True, random_state=0)

    def ours(seed: int) -> optuna.Study:
        net = InnaClassifier(
            hidden_layer_sizes=problem.hidden,
            batch_size=problem.batch_size,
            max_epochs=size.epochs,
            early_stopping=False,
            device=str(device),
            **PLAIN,
        )
        known = inspect.signature(InnaSearchCV).parameters
        return (
            InnaSearchCV(
                net,
                SearchSpace(SPACE),
                n_trials=size.trials,
                cv=cv,
                scoring="accuracy",
                sampler=optuna.samplers.RandomSampler(seed=seed),
                pruner=optuna.pruners.NopPruner(),
                refit=False,
                error_score="raise",
                random_state=seed,
                **({"population": batch} if "population" in known else {}),
            )
            .fit(problem.x, problem.y)
            .study_
        )

    def ours_plain(seed: int) -> optuna.Study:
        return (
            InnaSearchCV(
                InnaClassifier(device=str(device)),
                n_trials=size.trials,
                cv=cv,
                scoring="accuracy",
                refit=False,
                error_score="raise",
                random_state=seed,
            )
            .fit(problem.x, problem.y)
            .study_
        )

    def theirs(net: object, space: dict[str, FloatDistribution], seed: int) -> optuna.Study:
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=seed),
            pruner=optuna.pruners.NopPruner(),
        )
        search = OptunaSearchCV(
            net,
            space,
            cv=cv,
            n_trials=size.trials,
            scoring="accuracy",
            study=study,
            refit=False,
            error_score="raise",
        )
        search.fit(problem.x, problem.y)
        return study

    skorch = NeuralNetClassifier(
        Net,
        module__widths=problem.widths,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        batch_size=problem.batch_size,
        max_epochs=size.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks__print_log=None,
        device=str(device),
        verbose=0,
    )
    widest = [problem.widths[0], *InnaClassifier().hidden_layer_sizes, problem.widths[-1]]
    skorch_plain = NeuralNetClassifier(
        Net,
        module__widths=widest,
        criterion=nn.CrossEntropyLoss,
        callbacks__print_log=None,
        device=str(device),
        verbose=0,
    )
    mlp = MLPClassifier(
        problem.hidden,
        solver="sgd",
        batch_size=problem.batch_size,
        max_iter=size.epochs,
        n_iter_no_change=size.epochs,
        tol=0.0,
        early_stopping=False,
        nesterovs_momentum=False,
        random_state=0,
    )
    return {
        OURS: ours,
        SKORCH: lambda seed: theirs(skorch, SKORCH_SPACE, seed),
        MLP: lambda seed: theirs(mlp, MLP_SPACE, seed),
        OURS_PLAIN: ours_plain,
        SKORCH_PLAIN: lambda seed: theirs(skorch_plain, SKORCH_SPACE, seed),
    }


# ---------------------------------------------------------------------- the run


def measure(size: Size, device: torch.device, batch: str | int) -> tuple[pd.DataFrame, ...]:
    """Seconds: of products and epochs, of searches, of the leaving curve (a row a turn), and the best scores."""
    order = random.Random(0)
    digits, digits_large_batch, synthetic = problems()
    cells = [(p, m) for p in (digits, synthetic) for m in size.members]
    cells.append((digits_large_batch, SHARE_MEMBERS))
    timers = {("gemm", name, work): t for name, (t, work) in large_products(device, size.seconds).items()}
    for problem, members in cells:
        timers["epoch", problem.label, members] = Timer(
            epoch(population(problem, members, device)), size.seconds, device
        )
        timers["products", problem.label, members] = step_products(problem, members, size.seconds, device)
    stages = [max(size.members) >> i for i in range(max(size.members).bit_length())]
    fresh = {m: Timer(epoch(population(digits, m, device)), size.seconds, device) for m in stages}
    warm_up = Size(size.members, 1, 1, 0.0, epochs=2, trials=1)
    runs = {}
    for problem in (digits, synthetic):
        for search in searches(problem, warm_up, device, batch).values():
            search(0)  # The first call of anything is slower.
        for name, search in searches(problem, size, device, batch).items():
            runs[problem.name, name] = search

    steps, leaving, searching, scores = [], [], [], []
    for number in range(size.rounds):
        for _ in range(size.turns):
            steps.append({key: timers[key]() for key in order.sample(list(timers), len(timers))})
            leaving.append(leave(digits, fresh, size.seconds, device, order))
        seconds, best = {}, {}
        for key in order.sample(list(runs), len(runs)):
            start = time.perf_counter()
            study = runs[key](number)  # A score has been read from the device: its work is done.
            seconds[key] = time.perf_counter() - start
            allowed = {optuna.trial.TrialState.COMPLETE}
            if key[1] == OURS_PLAIN:
                allowed.add(optuna.trial.TrialState.PRUNED)
            states = [t.state for t in study.trials]
            if len(states) != size.trials or not set(states) <= allowed:
                raise RuntimeError(
                    f"{key}: not all of {size.trials} trials were trained to the end: {states}"
                )
            best[key] = study.best_value
        searching.append(seconds)
        scores.append(best)
        print(
            f"round {number + 1} of {size.rounds}: "
            + ", ".join(f"{k}: {s:.1f} s" for k, s in seconds.items())
        )
    return tuple(map(pd.DataFrame, (steps, searching, leaving, scores)))


def steps_table(times: pd.DataFrame) -> pd.DataFrame:
    """Part (a): a row for every net and number of members."""
    gemm = pd.DataFrame({k: k[2] / times[k] for k in times if k[0] == "gemm"}).max(axis=1)
    rows = []
    for problem in problems():
        for members in sorted(k[2] for k in times if k[:2] == ("epoch", problem.label)):
            step = times["epoch", problem.label, members] / problem.steps
            rate = members * operations(problem.widths, problem.batch_size) / step
            alone = times["products", problem.label, members]
            rows.append(
                {
                    "part": "steps",
                    "net": problem.label,
                    "members": members,
                    "rounds": len(times),
                    "seconds": step.median(),
                    "member_steps_per_second": (members / step).median().round(1),
                    "gflops": (rate / 1e9).median().round(2),
                    "gemm_gflops": (gemm / 1e9).median().round(2),
                    "share_of_gemm": (rate / gemm).median().round(4),
                    "share_of_products": (alone / step).median().round(4),
                }
            )
    return pd.DataFrame(rows)


def searches_table(times: pd.DataFrame, scores: pd.DataFrame, size: Size) -> pd.DataFrame:
    """Part (b): a row for every problem and search."""
    labels = {p.name: p.label for p in reversed(problems())}
    return pd.DataFrame(
        {
            "part": "searches",
            "problem": problem,
            "net": labels[problem],
            "method": method,
            "rounds": len(times),
            "trials": size.trials,
            "epochs": size.epochs if COUNTERPARTS[method] == OURS else None,
            "folds": FOLDS,
            "seconds": seconds.median(),
            "trials_per_second": (size.trials / seconds).median().round(3),
            "times_slower_than_ours": (seconds / times[problem, COUNTERPARTS[method]]).median().round(3),
            "best_accuracy": scores[problem, method].median().round(4),
        }
        for (problem, method), seconds in sorted(times.items())
    )


def leaving_table(times: pd.DataFrame) -> pd.DataFrame:
    """Part (c): a row for every number of survivors, largest first."""
    problem = problems()[0]
    return pd.DataFrame(
        {
            "part": "leaving",
            "net": problem.label,
            "members": members,
            "rounds": len(times),
            "seconds": times["survivors", members].median() / problem.steps,
            "fresh_seconds": times["fresh", members].median() / problem.steps,
            "ratio_to_fresh": (times["survivors", members] / times["fresh", members]).median().round(3),
        }
        for members in sorted({k[1] for k in times}, reverse=True)
    )


def print_goals(steps: pd.DataFrame, searching: pd.DataFrame) -> None:
    """Each goal, the figure, and whether it is met."""

    def verdict(what: str, value: float, goal: float) -> None:
        print(f"{what}: {value:.3g}, goal at least {goal:g}: {'met' if value >= goal else 'missed'}")

    for net, row in steps[steps.members == SHARE_MEMBERS].groupby("net", sort=False):
        what, share = f"{SHARE_MEMBERS} members of {net}: share of the GEMM rate", row.share_of_gemm.item()
        if "-128-" in net:
            verdict(what, share, SHARE_GOAL)
        else:
            print(f"{what}: {share:.3g}, no goal")
    ratio = searching.set_index(["problem", "method"]).times_slower_than_ours
    for problem, peer, goal in RATIO_GOALS:
        verdict(f"{problem}: trials per second over {peer}", ratio[problem, peer], goal)


def draw(steps: pd.DataFrame, searching: pd.DataFrame, leaving: pd.DataFrame, path: Path) -> None:
    """The figure."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for net, rows in steps.groupby("net", sort=False):
        axes[0, 0].loglog(rows.members, rows.member_steps_per_second, "o-", base=2, label=net)
        axes[0, 1].semilogx(rows.members, rows.share_of_gemm, "o-", base=2, label=net)
    axes[0, 0].set(xlabel="members", ylabel="member steps per second", title="Training")
    axes[0, 0].set_yscale("log", base=10)
    axes[0, 1].axhline(SHARE_GOAL, color="grey", linestyle=":")
    axes[0, 1].set(
        xlabel="members", ylabel="share of the GEMM rate", ylim=(0, 1), title="Share of the machine"
    )
    table = searching.pivot(index="problem", columns="method", values="trials_per_second")
    table[[OURS, MLP, SKORCH, OURS_PLAIN, SKORCH_PLAIN]].plot.bar(ax=axes[1, 0], rot=0, xlabel="")
    axes[1, 0].set(ylabel="trials per second", title="Searches")
    axes[1, 1].loglog(leaving.members, leaving.seconds * 1e3, "o-", base=2, label="survivors")
    axes[1, 1].loglog(leaving.members, leaving.fresh_seconds * 1e3, "x--", base=2, label="a fresh population")
    axes[1, 1].set_yscale("log", base=10)
    axes[1, 1].set(xlabel="members left", ylabel="milliseconds a step", title="Half leave at every rung")
    for ax in axes.flat:
        ax.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, and write table and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--population",
        default="auto",
        type=lambda text: text if text == "auto" else int(text),
        help="trials that InnaSearchCV trains together, where it lets one choose",
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    size = QUICK if arguments.quick else FULL
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The peers are meant to stop at the last epoch, and OptunaSearchCV says at every fit that it is experimental.
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", ExperimentalWarning)
    warnings.filterwarnings("ignore", category=FutureWarning, module="optuna")

    times, search_times, leave_times, scores = measure(size, device, arguments.population)
    steps, leaving = steps_table(times), leaving_table(leave_times)
    searching = searches_table(search_times, scores, size)
    for table in (steps, searching, leaving):
        print("\n" + table.drop(columns=["part", "rounds"]).to_string(index=False))
    print()
    print(machine(device))
    print_goals(steps, searching)
    if not arguments.quick:
        arguments.output.parent.mkdir(exist_ok=True)
        result = pd.concat([steps, searching, leaving], ignore_index=True).assign(**machine(device))
        result.to_csv(arguments.output, index=False)
        draw(steps, searching, leaving, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
