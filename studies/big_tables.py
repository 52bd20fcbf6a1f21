"""Peak memory of large tables: from a DataFrame, and from a CSV file, to the encoded table, and of a wide one's fit.

Memory, not time, so that it may run beside other work. Each case runs in a process of its own. Writes
``results/big_tables.csv`` and ``.md``, and prints the figures.

    python studies/big_tables.py
    python studies/big_tables.py --rows 20000 --wide-columns 500 --levels 2000 --megabytes 1 --out /tmp/big_tables
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

GOAL = 2.5
CASES = ("long", "wide", "levels", "text")
WAYS = ("frame", "read", "file")  # encode a DataFrame; read a file; both, one after the other
# Fit a classifier to the wide table: the default for one epoch, which holds what all of them hold, or for a minute.
FITS = {"fit": {"max_epochs": 1}, "minute": {"max_time": 60.0}}
HERE = Path(__file__).parent


def make(case: str, sizes: argparse.Namespace) -> pd.DataFrame:
    """The table of a case.

    Parameters
    ----------
    case : {"long", "wide", "levels", "text"}
        Many rows of 20 columns of all kinds; many columns of numbers; a column of as many levels as half its rows; cells of
        megabytes of text.
    sizes : Namespace
    """
    rng = np.random.default_rng(0)
    n = sizes.rows
    if case == "long":
        frame = pd.DataFrame({f"x{i}": rng.normal(size=n) for i in range(14)})
        for i in range(3):
            frame[f"level{i}"] = pd.Series(rng.choice([f"level {k}" for k in range(5 + i)], n), dtype="str")
        frame["town"] = pd.Series(rng.choice([f"t{k:04}" for k in range(2000)], n), dtype="str")
        frame["count"] = rng.integers(0, 100, n)
        frame["flag"] = rng.random(n) < 0.5
        return frame
    if case == "wide":
        values = rng.normal(size=(sizes.wide_rows, sizes.wide_columns))
        return pd.DataFrame(values, columns=[f"x{i}" for i in range(sizes.wide_columns)])
    if case == "levels":
        codes = rng.integers(0, sizes.levels, 2 * sizes.levels)
        return pd.DataFrame(
            {"key": pd.Series([f"key {c:07}" for c in codes], dtype="str"), "x": rng.normal(size=len(codes))}
        )
    words = np.array(["sun", "rain", "wind", "snow", "fog", "hail"])
    n_words = sizes.megabytes * 1_000_000 // 5
    cells = [" ".join(rng.choice(words, n_words)) for _ in range(12)]
    return pd.DataFrame({"note": pd.Series(cells, dtype="str"), "x": rng.normal(size=12)})


def peak(reset: bool = False) -> int:
    """Most bytes that this process has held so far; ``reset`` begins anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(case: str, way: str, sizes: argparse.Namespace) -> dict[str, float]:
    """Peak bytes over what stood before, and the bytes of table and encoded table."""
    from inna_tune.estimators import InnaClassifier, TableEncoder
    from inna_tune.tables.reading import read

    warnings.simplefilter("ignore")
    if way in FITS:
        frame = make(case, sizes)
        label = frame.iloc[:, :2].sum(axis=1) > 0
        before = peak(reset=True)
        InnaClassifier(random_state=0, **FITS[way]).fit(frame, label)
        held = int(frame.memory_usage(index=False).sum())
        return {"table": held, "encoded": held / 2, "peak": peak() - before}
    with tempfile.TemporaryDirectory() as folder:
        frame = make(case, sizes)
        held = int(frame.memory_usage(index=False).sum())
        if way != "frame":
            frame.to_csv(Path(folder) / "t.csv", index=False)
            del frame
        # What is loaded on first use belongs to no table.
        TableEncoder().fit_transform(pd.DataFrame({"a": [0.5, 1.5], "b": ["x", "y"]}))
        before = peak(reset=True)
        if way != "frame":
            frame = read(str(Path(folder) / "t.csv")).frame
            size = int(frame.memory_usage(index=False).sum())
        if way == "read":
            return {"table": size, "encoded": np.nan, "peak": peak() - before}
        encoded = TableEncoder().fit_transform(frame)
        return {"table": held, "encoded": encoded.nbytes, "peak": peak() - before}


def as_markdown(found: pd.DataFrame) -> str:
    """The figures as a table."""
    lines = [
        "| table | from | table, MB | encoded, MB | peak, MB | peak / encoded | peak / table |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found.itertuples():
        ratio = "" if np.isnan(row.over_encoded) else f"{row.over_encoded:.2f}"
        encoded = "" if np.isnan(row.encoded) else f"{row.encoded / 1e6:.1f}"
        lines.append(
            f"| {row.case} | {row.way} | {row.table / 1e6:.1f} | {encoded} | {row.peak / 1e6:.1f} | {ratio} "
            f"| {row.peak / row.table:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every case and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--wide-rows", type=int, default=500)
    parser.add_argument("--wide-columns", type=int, default=20_000)
    parser.add_argument("--levels", type=int, default=200_000)
    parser.add_argument("--megabytes", type=int, default=5, help="of a cell of text")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "big_tables", help="without a suffix")
    parser.add_argument("--only", nargs="+", metavar="CASE:WAY", help="such as long:frame; all if not given")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    sizes = parser.parse_args()
    if sizes.one:
        print(json.dumps(measure(*sizes.one, sizes)))
        return
    rows = []
    given = [
        word
        for n in ("rows", "wide_rows", "wide_columns", "levels", "megabytes")
        for word in (f"--{n.replace('_', '-')}", str(getattr(sizes, n)))
    ]
    pairs = [(case, way) for case in CASES for way in (*WAYS, *(FITS if case == "wide" else ()))]
    for case, way in pairs:
        if not sizes.only or f"{case}:{way}" in sizes.only:
            command = [sys.executable, __file__, *given, "--one", case, way]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{case} from a {way}: {done.stderr.strip().splitlines()[-1:]}")
            rows.append({"case": case, "way": way} | json.loads(done.stdout))
            print(rows[-1], flush=True)
    found = pd.DataFrame(rows).assign(over_encoded=lambda f: f["peak"] / f["encoded"])
    sizes.out.parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(sizes.out.with_suffix(".csv"), index=False)
    text = as_markdown(found)
    sizes.out.with_suffix(".md").write_text(text)
    print(text)
    main_job = found[(found["case"].isin(["long", "wide"])) & (found["way"] == "frame")]
    print(f"Goal: at most {GOAL} times the encoded table; found {main_job['over_encoded'].max():.2f}.")


if __name__ == "__main__":
    main()
