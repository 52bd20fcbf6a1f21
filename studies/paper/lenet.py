"""LeNet on MNIST: INNA beside SGD, SGD with momentum, ADAGRAD, ADAM, AdamW and INNAprop, all tuned alike.

    INNA_TUNE_DATA=folder python studies/paper/lenet.py --out small.csv                   # a fifth of it
    INNA_TUNE_DATA=folder python studies/paper/lenet.py --rows 60000 --tune-rows 50000 --validation-rows 10000 \
        --epochs 10 --seeds 5 --trials 15                 # all of MNIST: the results beside the script
    INNA_TUNE_DATA=folder python studies/paper/lenet.py --data cifar10 --net nin --out nin.csv ...

Tuning sees the training images only, split into 50,000 to learn from and 10,000 to judge by (CIFAR: 40,000 and 10,000): the
same number of Optuna trials for each optimizer, by `PriorSampler` over TPE, its step size (and momentum, alpha, beta, weight
decay) drawn from laws around the usual settings, which are each one's first trial. A trial is one epoch, judged by the loss
on validation images. Then every optimizer trains with its best setting from the same weights on the same batches of 32, for
several seeds. Step sizes decay by γ₀ (1 + k)^(−1/2), k in epochs, except ADAGRAD's, which decays by itself.

Writes ``lenet.csv`` (a row an epoch; a study that was broken off goes on where it stopped, ``--fresh`` starts anew),
``lenet_trials.csv`` (a row a trial), ``lenet.md`` and ``lenet.png`` beside the script, and keeps the Optuna studies in
``lenet.db``.

After section 5 of Castera, Bolte, Févotte, Pauwels (2021), An inertial Newton algorithm for deep learning, JMLR 22(134).
"""

import argparse
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import pandas as pd
import torch
from images import CLASSES, NETS, Images, load_images, make_net
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from inna_tune.optim import INNA, INNAprop
from inna_tune.optim.decay import decay_factor
from inna_tune.space import LogNormal, PriorSampler, SearchSpace, Uniform
from inna_tune.store.opening import create_study, open_storage

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
BATCH_SIZE = 32
N_VALIDATION = 10_000
OPTIONS = ("data", "net", "rows", "epochs", "trials", "tune_rows", "tune_epochs", "validation_rows")

# The class, the laws of what is tuned, and the usual setting, around which the laws lie and which is the first trial.
OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], SearchSpace, dict[str, float]]] = {
    "INNA": (
        INNA,
        SearchSpace(
            {
                "lr": LogNormal(0.1, 1.5, low=1e-3, high=10.0),
                "alpha": LogNormal(0.5, 1.0, low=0.01, high=10.0),
                "beta": LogNormal(0.1, 1.0, low=1e-3, high=10.0),
            }
        ),
        {"lr": 0.1, "alpha": 0.5, "beta": 0.1},
    ),
    "SGD": (
        torch.optim.SGD,
        SearchSpace({"lr": LogNormal(0.1, 1.5, low=1e-3, high=10.0)}),
        {"lr": 0.1},
    ),
    "SGD, momentum": (
        torch.optim.SGD,
        SearchSpace(
            {"lr": LogNormal(0.01, 1.5, low=1e-4, high=1.0), "momentum": Uniform(0.5, 0.99)},
        ),
        {"lr": 0.01, "momentum": 0.9},
    ),
    "ADAGRAD": (
        torch.optim.Adagrad,
        SearchSpace({"lr": LogNormal(0.01, 1.5, low=1e-4, high=1.0)}),
        {"lr": 0.01},
    ),
    "ADAM": (
        torch.optim.Adam,
        SearchSpace({"lr": LogNormal(0.001, 1.5, low=1e-5, high=0.1)}),
        {"lr": 0.001},
    ),
    "AdamW": (
        torch.optim.AdamW,
        SearchSpace(
            {
                "lr": LogNormal(0.001, 1.5, low=1e-5, high=0.1),
                "weight_decay": LogNormal(0.01, 1.5, low=1e-4, high=1.0),
            }
        ),
        {"lr": 0.001, "weight_decay": 0.01},
    ),
    "INNAprop": (
        INNAprop,
        SearchSpace(
            {
                "lr": LogNormal(0.001, 1.5, low=1e-5, high=0.1),
                "alpha": LogNormal(0.1, 1.0, low=0.01, high=10.0),
                "beta": LogNormal(0.9, 1.0, low=0.01, high=10.0),
            }
        ),
        {"lr": 0.001, "alpha": 0.1, "beta": 0.9},
    ),
}
COLOURS = {
    "INNA": "#000000",
    "SGD": "#56B4E9",
    "SGD, momentum": "#0072B2",
    "ADAGRAD": "#CC79A7",
    "ADAM": "#E69F00",
    "AdamW": "#D55E00",
    "INNAprop": "#009E73",
}
MARKERS = dict(zip(OPTIMIZERS, "osv^D<P", strict=True))

Decay = Callable[[float], float]


class DivergedError(ArithmeticError):
    """The loss of a batch is no number any more."""


def usual_decay(name: str) -> Decay:
    """Factor of the step size as a function of the epoch, under which an optimizer is tuned and compared."""
    law = "constant" if name == "ADAGRAD" else "power"
    return lambda epoch: decay_factor(law, epoch)


def make_optimizer(name: str, net: nn.Module, settings: dict[str, float]) -> Optimizer:
    """An optimizer of `OPTIMIZERS` for a net's weights."""
    return OPTIMIZERS[name][0](net.parameters(), **settings)


def train(
    net: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, *, epochs: int, seed: int, decay: Decay
) -> Iterator[int]:
    """Train, giving the number of each epoch that is over; batches and dropout depend on `seed` alone.

    Raises
    ------
    DivergedError
        If the loss of a batch is not finite.
    """
    order = torch.Generator().manual_seed(seed)
    first = [group["lr"] for group in optimizer.param_groups]
    n_batches = math.ceil(len(x) / BATCH_SIZE)
    for epoch in range(epochs):
        with torch.random.fork_rng():
            torch.manual_seed(1_000_003 * seed + epoch)
            net.train()
            for i, rows in enumerate(torch.randperm(len(x), generator=order).split(BATCH_SIZE)):
                factor = decay(epoch + i / n_batches)
                for group, lr in zip(optimizer.param_groups, first, strict=True):
                    group["lr"] = lr * factor
                optimizer.zero_grad()
                loss = cross_entropy(net(x[rows]), y[rows])
                if not math.isfinite(loss.item()):
                    raise DivergedError(f"the loss of batch {i} in epoch {epoch} is {loss.item()}")
                loss.backward()
                optimizer.step()
        yield epoch + 1


@torch.no_grad()
def evaluate(net: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats) and share of images that are recognised."""
    net.eval()
    loss, right = 0.0, 0
    for part, labels in zip(x.split(1000), y.split(1000), strict=True):
        scores = net(part)
        loss += cross_entropy(scores, labels, reduction="sum").item()
        right += int((scores.argmax(1) == labels).sum())
    return loss / len(x), right / len(x)


def split(images: Images, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Rows of the training images to tune with: to learn from, and to judge by."""
    order = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(0))
    learn, judge = order[:-N_VALIDATION], order[-N_VALIDATION:]
    return learn[: options.tune_rows], judge[: options.validation_rows]


def tune(name: str, images: Images, options: argparse.Namespace) -> optuna.Study:
    """Optuna's study of an optimizer, brought to the wanted number of trials."""
    learn, judge = split(images, options)
    _, space, usual = OPTIMIZERS[name]

    def objective(trial: optuna.Trial) -> float:
        net = make_net(options.net, images, CLASSES[options.data], 0)
        optimizer = make_optimizer(name, net, space.suggest(trial))
        run = train(
            net,
            optimizer,
            images.train_x[learn],
            images.train_y[learn],
            epochs=options.tune_epochs,
            seed=0,
            decay=usual_decay(name),
        )
        try:
            for _ in run:
                pass
        except DivergedError as error:
            raise optuna.TrialPruned(str(error)) from None
        loss, accuracy = evaluate(net, images.train_x[judge], images.train_y[judge])
        trial.set_user_attr("validation_accuracy", accuracy)
        if not math.isfinite(loss):
            raise optuna.TrialPruned("the validation loss is not finite")
        return loss

    of_study = (options.tune_rows, options.validation_rows, options.tune_epochs)
    study = create_study(
        open_storage(f"sqlite:///{options.out.with_suffix('.db')}"),
        "-".join(map(str, (options.data, options.net, name, *of_study))),
        "minimize",
        PriorSampler(TPESampler(seed=0), space, seed=0),
        resume=True,
    )
    if not study.trials:
        study.enqueue_trial(usual)
    done = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in study.trials)
    study.optimize(objective, n_trials=max(options.trials - done, 0))
    return study


def trials_table(studies: dict[str, optuna.Study]) -> pd.DataFrame:
    """A row a trial: its loss (none where it diverged), accuracy and setting."""
    rows = []
    for name, study in studies.items():
        for trial in study.trials:
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                accuracy = trial.user_attrs.get("validation_accuracy")
                rows.append(
                    {
                        "optimizer": name,
                        "trial": trial.number,
                        "validation_loss": trial.value,
                        "validation_accuracy": accuracy,
                        **trial.params,
                    }
                )
    return pd.DataFrame(rows)


def best_settings(trials: pd.DataFrame, name: str) -> dict[str, float]:
    """The setting of an optimizer's best trial in the table of `trials_table`."""
    of_optimizer = trials[trials.optimizer == name]
    best = of_optimizer.loc[of_optimizer.validation_loss.idxmin()]
    return {parameter: float(best[parameter]) for parameter in OPTIMIZERS[name][1]}


def training_rows(images: Images, n_rows: int) -> tuple[Tensor, Tensor]:
    """The first of the training images in an order drawn once."""
    rows = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(1))[:n_rows]
    return images.train_x[rows], images.train_y[rows]


def record(
    images: Images,
    net: nn.Module,
    optimizer: Optimizer,
    *,
    n_rows: int,
    epochs: int,
    seed: int,
    decay: Decay,
) -> list[dict[str, Any]]:
    """One training: training loss and test accuracy before it and after each epoch.

    A run that diverges ends with a row without values.
    """
    x, y = training_rows(images, n_rows)

    def row(epoch: int) -> dict[str, Any]:
        _, accuracy = evaluate(net, images.test_x, images.test_y)
        loss, _ = evaluate(net, x, y)
        if not math.isfinite(loss):
            raise DivergedError(f"the training loss after {epoch} epochs is {loss}")
        return {"epoch": epoch, "training_loss": loss, "test_accuracy": accuracy}

    rows = [row(0)]
    try:
        for epoch in train(net, optimizer, x, y, epochs=epochs, seed=seed, decay=decay):
            rows.append(row(epoch))
    except DivergedError:
        rows.append({"epoch": len(rows), "training_loss": math.nan, "test_accuracy": math.nan})
    return rows


def forget(out: Path) -> None:
    """Remove a results file and the Optuna studies beside it."""
    for suffix in (".csv", ".db", ".db-wal", ".db-shm"):
        out.with_suffix(suffix).unlink(missing_ok=True)


def known_rows(file: Path, options: dict[str, Any]) -> pd.DataFrame:
    """What a results file holds already; it must come from the same options.

    Raises
    ------
    SystemExit
        If its rows were made with other options.
    """
    if not file.exists():
        return pd.DataFrame()
    known = pd.read_csv(file)
    for option, value in options.items():
        if (known[option] != value).any():
            raise SystemExit(
                f"{file} holds results with {option}={known[option].iloc[0]}, not {value}; name another file by --out"
            )
    return known


def append(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a CSV file, with its header where it is new."""
    pd.DataFrame(rows).to_csv(file, mode="a", header=not file.exists(), index=False, float_format="%.6g")


def spread(values: pd.Series, form: str, scale: float = 1.0) -> str:
    """Mean ± standard deviation over the seeds."""
    if values.isna().any():
        return f"diverged in {int(values.isna().sum())} of {len(values)}"
    return f"{scale * values.mean():{form}} ± {scale * values.std():{form}}"


def last_rows(results: pd.DataFrame, by: str) -> pd.DataFrame:
    """The last row of every run."""
    return results.sort_values("epoch").groupby([by, "seed"], sort=False).tail(1)


def write_table(results: pd.DataFrame, trials: pd.DataFrame, options: argparse.Namespace) -> None:
    """The results as a table in Markdown, best accuracy first."""
    lines = [
        f"`{options.net}` on {options.data}: mean ± standard deviation over {results.seed.nunique()} seeds after "
        f"{options.epochs} epochs on {options.rows:,} training images, batches of {BATCH_SIZE}; accuracy on all test "
        f"images. Tuned by {options.trials} trials each, of {options.tune_epochs} epoch(s) on "
        f"{options.tune_rows:,} training images judged on {options.validation_rows:,} others.",
        "",
        "| optimizer | tuned setting | training loss (nats) | test accuracy (%) "
        "| points above INNA, seed by seed (± standard error) | trials no better than guessing |",
        "|---|---|---|---|---|---|",
    ]
    ends = last_rows(results, "optimizer")
    accuracies = ends.pivot(index="seed", columns="optimizer", values="test_accuracy")
    ahead = 100 * accuracies.sub(accuracies["INNA"], axis=0)
    for name in accuracies.mean().sort_values(ascending=False).index:
        runs = ends[ends.optimizer == name]
        setting = ", ".join(f"{key} {value:.3g}" for key, value in best_settings(trials, name).items())
        tried = trials[trials.optimizer == name]
        lost = ~(tried.validation_loss < math.log(CLASSES[options.data]))
        points = "" if name == "INNA" else f"{ahead[name].mean():+.2f} ± {ahead[name].sem():.2f}"
        lines.append(
            f"| {name} | {setting} | {spread(runs.training_loss, '.4f')} "
            f"| {spread(runs.test_accuracy, '.2f', 100)} | {points} | {lost.sum()} of {len(tried)} |"
        )
    if options.net == "lenet":
        lines += ["", "Network-in-Network on CIFAR-10 and CIFAR-100 was not run."]
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def draw(
    results: pd.DataFrame, by: str, colours: dict[str, str], markers: dict[str, str], file: Path, title: str
) -> None:
    """Training loss and test error over the epochs: means, and bands of one standard deviation."""
    figure, (losses, errors) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    results = results.assign(test_error=100 * (1 - results.test_accuracy))
    shift = {name: 0.03 * (i - len(colours) / 2) for i, name in enumerate(colours)}
    for axes, column in ((losses, "training_loss"), (errors, "test_error")):
        for name, colour in colours.items():
            runs = results[(results[by] == name) & (results.epoch > 0)].groupby("epoch")[column]
            mean, std = runs.mean(), runs.std().fillna(0)
            axes.errorbar(
                mean.index + shift[name],
                mean,
                yerr=[(mean - (mean - std).clip(lower=mean / 3)), std],
                color=colour,
                marker=markers[name],
                markersize=6,
                linewidth=2.4 if name == "INNA" else 1.4,
                capsize=2,
                label=name,
            )
        axes.set(xlabel="epochs", yscale="log")
        axes.set_xticks(sorted(set(results.epoch) - {0}) if results.epoch.max() <= 20 else axes.get_xticks())
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
        axes.yaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
        axes.tick_params(axis="y", which="minor", labelsize=7)
        axes.grid(alpha=0.3, which="both")
    losses.set(ylabel="training loss (cross-entropy, nats)")
    errors.set(ylabel="test error (% of the images)")
    figure.legend(*errors.get_legend_handles_labels(), loc="outside right center", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def parser(description: str, out: Path) -> argparse.ArgumentParser:
    """The options that the studies on images share."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--data", choices=sorted(CLASSES), default="mnist")
    found.add_argument("--net", choices=sorted(NETS), default="lenet")
    found.add_argument("--rows", type=int, default=12_000, help="training images of the runs")
    found.add_argument("--epochs", type=int, default=4)
    found.add_argument("--seeds", type=int, default=3)
    found.add_argument("--out", type=Path, default=out, help="CSV file; table and figure lie beside it")
    found.add_argument(
        "--fresh", action="store_true", help="forget the results in that file instead of going on"
    )
    return found


def data_folder() -> Path:
    """The folder that INNA_TUNE_DATA names.

    Raises
    ------
    SystemExit
        If the variable is not set.
    """
    if "INNA_TUNE_DATA" not in os.environ:
        raise SystemExit(
            "set INNA_TUNE_DATA to the folder that holds mnist (the idx files), cifar-10 or cifar-100"
        )
    return Path(os.environ["INNA_TUNE_DATA"])


def main() -> None:
    """Tune, train, write table and figure."""
    options = parser(__doc__, HERE / "lenet.csv")
    options.set_defaults(seeds=5)
    options.add_argument("--trials", type=int, default=12, help="of each optimizer")
    options.add_argument("--tune-rows", type=int, default=6_000)
    options.add_argument("--validation-rows", type=int, default=2_000)
    options.add_argument("--tune-epochs", type=int, default=1)
    chosen = options.parse_args()
    logging.getLogger("optuna").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    same = {key: getattr(chosen, key) for key in OPTIONS}
    if chosen.fresh:
        forget(chosen.out)
    known = known_rows(chosen.out, same)
    images = load_images(data_folder(), chosen.data)
    studies = {}
    for name in OPTIMIZERS:
        studies[name] = tune(name, images, chosen)
        print(f"tuned {name}: loss {studies[name].best_value:.4f} at {studies[name].best_params}", flush=True)
    trials = trials_table(studies)
    trials.to_csv(chosen.out.with_name(f"{chosen.out.stem}_trials.csv"), index=False, float_format="%.6g")
    done = set(zip(known.optimizer, known.seed, strict=True)) if len(known) else set()
    for seed in range(chosen.seeds):
        for name in OPTIMIZERS:
            if (name, seed) in done:
                continue
            net = make_net(chosen.net, images, CLASSES[chosen.data], seed)
            optimizer = make_optimizer(name, net, best_settings(trials, name))
            rows = record(
                images,
                net,
                optimizer,
                n_rows=chosen.rows,
                epochs=chosen.epochs,
                seed=seed,
                decay=usual_decay(name),
            )
            append(chosen.out, [same | {"optimizer": name, "seed": seed} | row for row in rows])
            print(f"trained {name}, seed {seed}: {rows[-1]}", flush=True)
    results = pd.read_csv(chosen.out)
    write_table(results, trials, chosen)
    title = f"{chosen.net} on {chosen.data}, {chosen.rows:,} training images, {chosen.seeds} seeds (bars: one deviation)"
    draw(results, "optimizer", COLOURS, MARKERS, chosen.out.with_suffix(".png"), title)


if __name__ == "__main__":
    main()
