"""What other frictions do to default fits, whose steps are held (docs/mathematics.md, "The longest step").

    INNA_TUNE_DATA=folder OMP_NUM_THREADS=1 python studies/friction.py [--frictions 0.24] [--kinds ten,made] [--splits 3]

Tables as in ``longest_step.py``. Adds to ``studies/results/friction.csv`` what it does not have yet, a row a table, split
and friction. Sums up in ``friction.md``: of each task and kind of tables, the loss of rows apart and the CPU seconds beside
those at the usual friction.
"""

import argparse
from pathlib import Path

import numpy as np
from accuracy import run_missing
from longest_step import estimator_for, names_of, parts
from peers import NUMBERS

RESULTS = Path(__file__).parent / "results" / "friction.csv"
USUAL = {"classes": 0.06, "numbers": 0.03}


def parts_of(name, draw):
    """What `run_missing` asks for, of a kind of tables and a name, "made: classes, 2000"."""
    X, y, X_test, y_test, is_regression = parts(*name.split(": "), draw)
    return X, y, X_test, y_test, y, NUMBERS if is_regression else "classification"


def at(friction):
    """What makes the estimator that has a friction."""

    def make(task, draw, name, _):
        kind = name.split(": ")[0]
        return estimator_for(kind, task == NUMBERS, random_state=draw, friction=friction)

    return make


def summed_up(results):
    """Lines of what each friction changed, in the mean over tables of the mean over splits."""
    lines = [
        "| task | tables | friction | of tables | loss, mean ± standard error | at its worst | CPU seconds |"
    ]
    lines.append("|---|---|" + " ---: |" * 5)
    results = results.assign(
        friction=results.method.str.split().str[1].astype(float), kind=results.table.str.split(": ").str[0]
    )
    for (task, kind), own in results.groupby(["task", "kind"], sort=False):
        usual = USUAL[task]
        logs = {
            name: np.log(own.pivot_table(index=["table", "split"], columns="friction", values=name))
            for name in ("score", "CPU seconds")
        }
        for friction in [f for f in logs["score"] if f != usual]:
            loss, seconds = (
                (log[friction] - log[usual]).dropna().groupby("table").mean() for log in logs.values()
            )
            change = 100 * np.expm1(loss)
            of_all = f"{change.mean():+.2f}% ± {change.sem():.2f}%"
            lines.append(
                f"| {task} | {kind} | {friction:g} beside {usual:g} | {len(change)} | {of_all} "
                f"| {change.max():+.1f}% ({change.idxmax().split(': ')[1]}) | × {np.exp(seconds.mean()):.2f} |"
            )
    return lines


def main():
    """Try what is missing, and sum up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frictions", default="0.24,0.12,0.06,0.03")
    parser.add_argument("--kinds", default="ten,new,made")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    tables = [f"{kind}: {name}" for kind in options.kinds.split(",") for name in names_of(kind)]
    # A name that is no number is read as it was written.
    methods = {
        f"friction {friction:g}": at(friction) for friction in map(float, options.frictions.split(","))
    }
    results = run_missing(options.output, "split", range(options.splits), tables, methods, parts_of)
    tasks = {name: _task_of(name) for name in results.table.unique()}
    lines = summed_up(results.assign(task=results.table.map(tasks)))
    print("\n".join(lines))
    options.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _task_of(name):
    return "numbers" if parts_of(name, 0)[-1] == NUMBERS else "classes"


if __name__ == "__main__":
    main()
