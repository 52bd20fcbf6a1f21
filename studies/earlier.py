"""What a default fit costs, and how well it predicts, beside that of an earlier version.

    INNA_TUNE_DATA=folder python studies/earlier.py [--commit 5c69426^] [--tables a,b] [--rounds 2]

Tables, rows and scores are those of the first split of `accuracy.py`. Both versions fit in fresh processes of one thread, after
a small fit that loads what is loaded once, in an order that is drawn anew for each round; of a table counts the ratio of their
medians. The earlier version is taken from the repository's history; what it needs must be installed. The default commit is that
before each weight matrix had a scale of its own: the one that a default fit was to take a third of. Writes
``studies/results/earlier.csv``, and ``earlier.md`` beside it. Nothing else should compute meanwhile.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accuracy import TABLES, default, score, split
from optimizer_speed import machine

STUDIES = Path(__file__).parent
RESULTS = STUDIES / "results" / "earlier.csv"
COMMIT = "5c69426^"


def one_fit(name):
    """CPU seconds of a default fit, and of a prediction of the test rows, with their loss, as JSON."""
    warnings.simplefilter("ignore")
    X, y, X_test, y_test, y_scale, task = split(name)
    few = np.random.default_rng(0).permutation(len(X))[:200]
    default(task, 0, max_epochs=2).fit(X.iloc[few], y[few])
    began = time.process_time()
    model = default(task, 0).fit(X, y)
    fitted = time.process_time()
    predicted = model.predict(X_test) if task == "regression" else model.predict_proba(X_test)
    print(
        json.dumps(
            {
                "CPU seconds": round(fitted - began, 2),
                "to predict": round(time.process_time() - fitted, 2),
                "score": score(task, y_scale, y_test, predicted),
            }
        )
    )


def measured(tree, name):
    """What `one_fit` says by the package in a tree."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tree}{os.pathsep}{STUDIES}"}
    command = [sys.executable, str(Path(__file__).resolve()), "--fit", name]
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=tree)
    return json.loads(said.stdout.splitlines()[-1])


def as_markdown(results):
    """A row a table, and the geometric mean of the ratios."""
    found = results.groupby(["table", "version"])[["CPU seconds", "to predict", "score"]].median().unstack()
    found = found.reindex([name for name in TABLES if name in found.index])
    ratio = found["CPU seconds", "now"] / found["CPU seconds", "then"]
    lines = [
        "| table | CPU seconds then | now | ratio | loss then | now | difference |",
        "| --- |" + " --- |" * 6,
    ]
    for name, row in found.iterrows():
        change = row["score", "now"] / row["score", "then"] - 1
        lines.append(
            f"| {name} | {row['CPU seconds', 'then']:.1f} | {row['CPU seconds', 'now']:.1f} | {ratio[name]:.2f} "
            f"| {row['score', 'then']:.4f} | {row['score', 'now']:.4f} | {change:+.1%} |"
        )
    losses = np.log(found["score", "now"] / found["score", "then"])
    lines += [
        "",
        f"Geometric means of {len(found)} tables: CPU seconds × {np.exp(np.log(ratio).mean()):.2f}, loss "
        f"{np.expm1(losses.mean()):+.1%}. Then is commit {results.commit.iloc[-1]}; one thread of "
        f"{results.cpu.iloc[-1]}, medians of {results['round'].nunique()} round(s), one split.",
    ]
    return "\n".join(lines) + "\n"


def main():
    """Run, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commit", default=COMMIT)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        one_fit(arguments.fit)
        return
    git = ["git", "-C", str(STUDIES)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", arguments.commit], capture_output=True, text=True, check=True
    ).stdout.strip()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "then"
        subprocess.run([*git, "worktree", "add", "--detach", str(tree), commit], check=True)
        try:
            for number in range(arguments.rounds):
                for name in arguments.tables.split(","):
                    versions = [("then", tree), ("now", STUDIES.parent)]
                    random.shuffle(versions)
                    for version, place in versions:
                        row = {"table": name, "version": version, "round": number, **measured(place, name)}
                        rows.append(row | {"commit": commit, "cpu": machine(torch.device("cpu"))["cpu"]})
                        print(rows[-1], flush=True)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)
    results = pd.DataFrame(rows)
    results.to_csv(arguments.output, index=False, float_format="%.6g")
    text = as_markdown(results)
    arguments.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
