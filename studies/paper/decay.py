"""Decay laws of INNA's step size, on LeNet and MNIST: how fast should it shrink?

    INNA_TUNE_DATA=folder python studies/paper/decay.py
    INNA_TUNE_DATA=folder python studies/paper/decay.py --rows 60000 --epochs 20 --seeds 5 --out full.csv

The power law γ₀ (1 + k)^(−q) for q = 1/2, 1/4, 1/8 and 1/16, the log law γ₀ (1 + ln(1 + k))^(−3/2), cosine and no decay,
k in epochs, all with the setting of INNA that ``lenet.py`` tuned (under q = 1/2, so that γ₀ itself favours that law).

The paper's theory asks for steps that are not summable and o(1/log k). Every power law with 0 < q ≤ 1 and the log law
with an exponent above 1 are such; counted in epochs or in steps, which differ by a factor, makes no difference to that. A
constant step is no o(1/log k): the iterates keep moving in a noise ball that does not shrink. Cosine reaches zero after a
finite number of steps, whose sum is finite: that it works is practice, about which a theorem on limits says nothing.

Writes ``decay.csv`` (a row an epoch; a study that was broken off goes on, ``--fresh`` starts anew), ``decay.md`` and
``decay.png``.

After section 5 of Castera, Bolte, Févotte, Pauwels (2021), An inertial Newton algorithm for deep learning, JMLR 22(134).
"""

import argparse
from functools import partial

import pandas as pd
import torch
from images import CLASSES, load_images, make_net
from lenet import (
    BATCH_SIZE,
    HERE,
    append,
    best_settings,
    data_folder,
    draw,
    forget,
    known_rows,
    last_rows,
    make_optimizer,
    parser,
    record,
    spread,
)

from inna_tune.optim.decay import decay_factor

# Law, exponent, and whether the theory covers it: steps not summable, and o(1/log k).
LAWS: dict[str, tuple[str, float | None, str]] = {
    "q = 1/2": ("power", 1 / 2, "yes"),
    "q = 1/4": ("power", 1 / 4, "yes"),
    "q = 1/8": ("power", 1 / 8, "yes"),
    "q = 1/16": ("power", 1 / 16, "yes"),
    "log, p = 3/2": ("log", 3 / 2, "yes"),
    "cosine": ("cosine", None, "no: summable"),
    "constant": ("constant", None, "no: not o(1/log k)"),
}
COLOURS = dict(
    zip(LAWS, ("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"), strict=True)
)
MARKERS = dict(zip(LAWS, "osv^D<P", strict=True))


def write_table(results: pd.DataFrame, setting: dict[str, float], options: argparse.Namespace) -> None:
    """The results as a table in Markdown, in the order of the laws."""
    written = ", ".join(f"{key} {value:.3g}" for key, value in setting.items())
    lines = [
        f"INNA ({written}) on `{options.net}` and {options.data}: mean ± standard deviation over "
        f"{results.seed.nunique()} seeds after {options.epochs} epochs on {options.rows:,} training images, batches of "
        f"{BATCH_SIZE}.",
        "",
        "| law | last factor of the step | training loss (nats) | test accuracy (%) | covered by the theory |",
        "|---|---|---|---|---|",
    ]
    ends = last_rows(results, "law")
    for name, (law, power, covered) in LAWS.items():
        runs = ends[ends.law == name]
        factor = decay_factor(law, options.epochs, power=power, horizon=options.epochs)
        lines.append(
            f"| {name} | {factor:.2f} | {spread(runs.training_loss, '.4f')} "
            f"| {spread(runs.test_accuracy, '.2f', 100)} | {covered} |"
        )
    lines += [
        "",
        "The theory asks for steps that are not summable and o(1/log k). The initial step was tuned under q = 1/2.",
    ]
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Train under every law, write table and figure."""
    found = parser(__doc__, HERE / "decay.csv")
    found.set_defaults(rows=6_000)
    found.add_argument(
        "--trials-file", default=HERE / "lenet_trials.csv", help="where lenet.py left its trials"
    )
    options = found.parse_args()
    torch.set_num_threads(1)
    setting = best_settings(pd.read_csv(options.trials_file), "INNA")
    same = {key: getattr(options, key) for key in ("data", "net", "rows", "epochs")}
    if options.fresh:
        forget(options.out)
    known = known_rows(options.out, same | {key: float(f"{value:.6g}") for key, value in setting.items()})
    images = load_images(data_folder(), options.data)
    done = set(zip(known.law, known.seed, strict=True)) if len(known) else set()
    for seed in range(options.seeds):
        for name, (law, power, _) in LAWS.items():
            if (name, seed) in done:
                continue
            net = make_net(options.net, images, CLASSES[options.data], seed)
            rows = record(
                images,
                net,
                make_optimizer("INNA", net, setting),
                n_rows=options.rows,
                epochs=options.epochs,
                seed=seed,
                decay=partial(decay_factor, law, power=power, horizon=options.epochs),
            )
            append(options.out, [same | setting | {"law": name, "seed": seed} | row for row in rows])
            print(f"trained {name}, seed {seed}: {rows[-1]}", flush=True)
    results = pd.read_csv(options.out)
    write_table(results, setting, options)
    title = (
        f"INNA on {options.net} and {options.data}, {options.rows:,} training images, {options.seeds} seeds"
    )
    draw(results, "law", COLOURS, MARKERS, options.out.with_suffix(".png"), f"{title} (bars: one deviation)")


if __name__ == "__main__":
    main()
