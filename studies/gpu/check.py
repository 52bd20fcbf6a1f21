"""Everything that is to be known of a GPU, in ten minutes: whether what is written for it is right, and what it is worth.

    python studies/gpu/check.py                       writes studies/gpu/results.md
    python studies/gpu/check.py --images FOLDER       Network-in-Network, too, on CIFAR-10 (studies/paper/images.py)
    python studies/gpu/check.py --parts steps fits    these parts alone
    python studies/gpu/check.py --dry --out FILE      the same code at small sizes, also on a CPU, in under a minute

Nothing is to be decided. A part that fails says so in the results, and the others go on; the script then ends with code 1.
Times are medians of rounds in which all that is compared takes turns; the device is waited for before and after each.
"""

import argparse
import contextlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pandas as pd
import torch
from made import made_members, made_table, mixed_table, tabular_net
from torch import Tensor, nn

from inna_tune import InnaClassifier
from inna_tune.engine import CrossEntropy, Method, Population, TableTensors, Training
from inna_tune.engine.stepping import Captured
from inna_tune.nets import TabularNet
from inna_tune.optim import INNA, INNAprop

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.md"
TESTED = ("optim/test_inna_mixed_precision.py", "optim/test_inna_compile.py", "engine/test_method.py")
GPU_TESTS = [f"tests/{file}" for file in (*TESTED, "estimators/test_pickling.py", "study/test_on_cuda.py")]

# Largest difference of weights from the CPU's, relative to the largest weight: of float64 after whole trainings, of the
# others after one epoch, since INNA at its edge of stability makes much of little.
TOLERANCES = {"float64": 1e-6, "float32": 1e-3, "tf32": 3e-2, "bf16": 1e-1}
GOAL_SPEED, GOAL_SHARE = 50.0, 0.6


@dataclass(frozen=True)
class Sizes:
    """What is measured, large or small."""

    rounds: int
    repeats: int
    weights: tuple[tuple[int, int], ...]
    members: tuple[int, ...]
    trial_rows: int
    epochs: int
    product: tuple[int, int, int]
    square: int
    wide_members: tuple[int, ...]
    tables: dict[str, tuple[int, int]]
    seconds: float
    nin_seconds: float


LARGE = Sizes(
    rounds=15,
    repeats=20,
    weights=((2048, 2048),) * 8,
    members=(1, 8, 64, 512),
    trial_rows=2000,
    epochs=10,
    product=(64, 1024, 256),
    square=8192,
    wide_members=(1, 64),
    tables={
        "600 × 14": (600, 14),
        "like adult, 48,842 × 14": (48_842, 14),
        "1,000,000 × 50": (1_000_000, 50),
    },
    seconds=60.0,
    nin_seconds=60.0,
)
SMALL = Sizes(
    rounds=2,
    repeats=1,
    weights=((32, 32),) * 2,
    members=(1, 2),
    trial_rows=96,
    epochs=1,
    product=(2, 32, 16),
    square=64,
    wide_members=(1, 2),
    tables={"100 × 14": (100, 14), "like adult, 300 × 14": (300, 14), "400 × 50": (400, 50)},
    seconds=1.0,
    nin_seconds=0.5,
)

Row = dict[str, Any]


class Check:
    """All parts, on one device.

    Parameters
    ----------
    device : torch.device
    sizes : Sizes
    images : Path, optional
        Folder of images.
    dry : bool
        Tests are collected, not run.
    """

    def __init__(self, device: torch.device, sizes: Sizes, images: Path | None, *, dry: bool) -> None:
        self.device, self.sizes, self.images, self.dry = device, sizes, images, dry

    # ------------------------------------------------------------------ measuring

    def wait(self) -> None:
        """Until the device has done what it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, acts: dict[str, Callable[[], Any]], *, repeats: int | None = None) -> dict[str, float]:
        """Of one act each: the median over rounds."""
        repeats = self.sizes.repeats if repeats is None else repeats
        found: dict[str, list[float]] = {name: [] for name in acts}
        for act in acts.values():
            act()
        for _ in range(self.sizes.rounds):
            for name, act in acts.items():
                self.wait()
                began = time.perf_counter()
                for _ in range(repeats):
                    act()
                self.wait()
                found[name].append((time.perf_counter() - began) / repeats)
        return {name: statistics.median(times) for name, times in found.items()}

    @contextlib.contextmanager
    def peak(self, row: Row) -> Iterator[None]:
        """Enter into a row the most memory that was taken within: of the device, or of the process where that is the CPU."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.device.type == "cuda":
            row["peak MiB"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        else:
            row["peak MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    # ------------------------------------------------------------------ what is trained

    def on_device(self, table: TableTensors) -> TableTensors:
        """The same there."""
        return TableTensors(table.x.to(self.device), table.target.to(self.device))

    def population(self, n: int, batch: int, net: TabularNet, *, precision: str = "float32") -> Population:
        """Members on a made table, four batches an epoch."""
        return Population(
            net,
            self.on_device(made_table(4 * batch, width=net.in_features)),
            [replace(m, train_rows=np.arange(4 * batch)) for m in made_members(n, 4 * batch)],
            CrossEntropy(),
            batch_size=batch,
            horizon=100,
            method=Method(averaging=0.99, precision=precision),  # type: ignore[arg-type]
            stacked=True,
        )

    # ------------------------------------------------------------------ the parts

    def tests(self) -> list[Row]:
        """The tests marked gpu; dry, one file of them is collected."""
        words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        # Compiling takes most of their time, and that is the CPU's.
        many = str(min(8, os.cpu_count() or 1))
        words += [GPU_TESTS[0], "-n", "0", "--collect-only"] if self.dry else [*GPU_TESTS, "-n", many]
        told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
        lines = told.stdout.strip().splitlines() or [told.stderr[-500:]]
        if told.returncode != 0:
            raise RuntimeError(f"the tests marked gpu failed: {lines[-1]}\n" + "\n".join(lines[-40:]))
        return [{"tests": "collected" if self.dry else "passed", "pytest says": lines[-1]}]

    def steps(self) -> list[Row]:
        """A step of INNA beside torch's fused optimizers, on few large tensors and on those of the default net."""
        tabular = [shape[::-1] or (1,) for shape in tabular_net().parameter_shapes.values()]
        found: list[Row] = []
        for name, shapes in (("large", self.sizes.weights), ("tabular", tabular)):
            weights = [nn.Parameter(torch.randn(shape, device=self.device)) for shape in shapes]
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            methods: dict[str, Any] = {
                "SGD, momentum, fused": torch.optim.SGD(weights, lr=1e-6, momentum=0.9, fused=True),
                "AdamW, fused": torch.optim.AdamW(weights, lr=1e-6, fused=True),
                "INNA": INNA(weights, lr=1e-4, alpha=0.5, beta=0.1),
                "INNA, foreach": INNA(weights, lr=1e-4, alpha=0.5, beta=0.1, foreach=True),
                "INNAprop": INNAprop(weights, lr=1e-6),
            }
            times = self.seconds({key: method.step for key, method in methods.items()})
            base = times["SGD, momentum, fused"]
            count = sum(weight.numel() for weight in weights)
            for key, own in times.items():
                found.append(
                    {"net": name, "weights": count, "step of": key, "µs": 1e6 * own, "to SGD": own / base}
                )
        return found

    def trials(self) -> list[Row]:
        """Trials a second of members trained together, beside a loop of skorch fits of the same net."""
        from skorch import NeuralNetClassifier

        n_rows, epochs = self.sizes.trial_rows, self.sizes.epochs
        made = made_table(n_rows)
        net, table = tabular_net(hidden=(64, 64), embedding="none"), self.on_device(made)
        plain = nn.Sequential(nn.Linear(20, 64), nn.Mish(), nn.Linear(64, 64), nn.Mish(), nn.Linear(64, 2))
        fits = 1 if self.dry else 3
        began = time.perf_counter()
        for _ in range(fits):
            NeuralNetClassifier(
                plain,
                criterion=nn.CrossEntropyLoss,
                optimizer=torch.optim.SGD,
                optimizer__momentum=0.9,
                lr=0.01,
                max_epochs=epochs,
                batch_size=128,
                iterator_train__shuffle=True,
                device=str(self.device),
                verbose=0,
            ).fit(made.x.numpy(), made.target.numpy())
        base = fits / (time.perf_counter() - began)
        found: list[Row] = [{"trials": "a loop of skorch fits", "a second": base, "to skorch": 1.0}]
        for n in self.sizes.members:
            members = made_members(n, n_rows)
            for is_timed in (False, True):
                began = time.perf_counter()
                options = {"batch_size": 128, "max_epochs": epochs if is_timed else 1, "width": n}
                Training(net, table, members, CrossEntropy(), **options).run()
                self.wait()
            rate = n / (time.perf_counter() - began)
            found.append({"trials": f"{n} together", "a second": rate, "to skorch": rate / base})
        found[-1]["goal"] = f"{GOAL_SPEED:g} ×: {'met' if found[-1]['to skorch'] >= GOAL_SPEED else 'missed'}"
        return found

    def products(self) -> list[Row]:
        """Share of the peak of matrix products: of products of members alone, and of whole steps."""
        n, batch, width = self.sizes.product
        found: list[Row] = []
        for precision in self._precisions():
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            with self._products_in(precision):
                side = self.sizes.square
                a, b = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
                x = torch.randn(n, batch, width, device=self.device, dtype=dtype)
                w = torch.randn(n, width, width, device=self.device, dtype=dtype)
                net = tabular_net(width, (width, width), embedding="none")
                population = self.population(n, batch, net, precision=precision)
                rates = population.learning_rates(0)
                times = self.seconds(
                    {"peak": lambda a=a, b=b: a @ b, "products": lambda x=x, w=w: torch.bmm(x, w)}
                )
                epoch = self.seconds({"epoch": lambda p=population, r=rates: p.train_epoch(r)}, repeats=1)[
                    "epoch"
                ]
            peak = 2 * side**3 / times["peak"]
            layers = width * width * 2 + width * 2
            # Forward, to the weights and to what a layer reads, but the first layer's inputs.
            flops = 2 * batch * (3 * layers - width * width) * n
            share = {
                "products": 2 * n * batch * width**2 / times["products"] / peak,
                "step": flops / (epoch / 4) / peak,
            }
            met = "met" if share["step"] >= GOAL_SHARE else "missed"
            found.append(
                {
                    "precision": precision,
                    "peak TFLOP/s": peak / 1e12,
                    "products alone": share["products"],
                    "whole steps": share["step"],
                    "ms a step": 1e3 * epoch / 4,
                    "goal": f"{GOAL_SHARE:.0%}: {met}",
                }
            )
        return found

    def _precisions(self) -> Sequence[str]:
        return ("float32", "tf32", "bf16")

    @contextlib.contextmanager
    def _products_in(self, precision: str) -> Iterator[None]:
        settings = torch.backends.cuda.matmul
        before = settings.fp32_precision
        settings.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        try:
            yield
        finally:
            settings.fp32_precision = before

    def graphs(self) -> list[Row]:
        """Steps of the default net with and without a CUDA graph, and what they learn."""
        found: list[Row] = []
        for n in self.sizes.wide_members:
            for name in ("graph", "no graph"):
                refused = mock.patch.object(Captured, "is_possible", staticmethod(lambda *_: False))
                with refused if name == "no graph" else contextlib.nullcontext():
                    row: Row = {"members": n, "steps": name}
                    with self.peak(row):
                        population = self.population(n, 128, tabular_net())
                        rates = population.learning_rates(0)
                        act = {"epoch": lambda p=population, r=rates: p.train_epoch(r)}
                        row["µs a step"] = 1e6 * self.seconds(act, repeats=1)["epoch"] / 4
                    row["captured"] = population._captured is not None
                    found.append(row)
        if self.device.type == "cuda" and not all(r["captured"] for r in found if r["steps"] == "graph"):
            raise RuntimeError("no step was captured as a graph")
        return found

    def fits(self) -> list[Row]:
        """The default fit on the device and on the CPU, each with the same time."""
        found: list[Row] = []
        for name, (n_rows, width) in self.sizes.tables.items():
            X, y = mixed_table(n_rows, width)
            cut = n_rows - n_rows // 5
            for device in dict.fromkeys((str(self.device), "cpu")):
                row: Row = {"table": name, "device": device}
                began = time.perf_counter()
                with self.peak(row):
                    model = InnaClassifier(device=device, max_time=self.sizes.seconds, random_state=0)
                    model.fit(X[:cut], y[:cut])
                row |= {"seconds": time.perf_counter() - began, "epochs": model.n_iter_}
                row["epochs a second"] = len(model.history_) / row["seconds"]
                row["accuracy"] = model.score(X[cut:], y[cut:])
                found.append(row)
        return found

    def equality(self) -> list[Row]:
        """What the device trains beside what the CPU trains."""
        found: list[Row] = []
        for kind, tolerance in TOLERANCES.items():
            dtype = torch.float64 if kind == "float64" else torch.float32
            made = made_table(min(self.sizes.trial_rows, 1000), dtype=dtype)
            members = made_members(3, len(made.x), dropout=0.0)
            precision = kind if kind in ("tf32", "bf16") else "float32"
            weights = []
            for place, method in (
                (torch.device("cpu"), Method()),
                (self.device, Method(precision=precision)),
            ):  # type: ignore[arg-type]
                table = TableTensors(made.x.to(place), made.target.to(place))
                options = {"batch_size": 128, "max_epochs": self.sizes.epochs if kind == "float64" else 1}
                training = Training(
                    tabular_net(hidden=(16, 16)),
                    table,
                    members,
                    CrossEntropy(),
                    method=method,
                    width=3,
                    stacked=True,
                    **options,
                )
                training.run()
                weights.append(torch.stack([self._weights(r.weights) for r in training.results]))
            there = float((weights[1] - weights[0]).abs().max() / weights[0].abs().max())
            found.append({"numbers": kind, "largest difference": there, "at most": tolerance})
        if any(row["largest difference"] > row["at most"] for row in found):
            raise RuntimeError(
                f"the device trains otherwise than the CPU:\n{pd.DataFrame(found).to_string()}"
            )
        return found

    @staticmethod
    def _weights(weights: Tensor | None) -> Tensor:
        if weights is None:
            raise RuntimeError("a member diverged")
        return weights.cpu().double()

    def network_in_network(self) -> list[Row]:
        """Network-in-Network of INNA's paper on CIFAR-10, for a minute."""
        if self.images is None:
            return [{"images": "no folder was given (--images)"}]
        sys.path.insert(0, str(ROOT / "studies" / "paper"))
        from images import load_images, make_net  # type: ignore[import-not-found]

        images = load_images(self.images, "cifar10")
        net = make_net("nin", images, 10, 0).to(self.device)
        optimizer = INNA(net.parameters(), lr=0.1, alpha=0.5, beta=0.1)
        x, y = images.train_x.to(self.device), images.train_y.to(self.device)
        stream, seen, began = torch.Generator().manual_seed(0), 0, time.perf_counter()
        net.train()
        while time.perf_counter() - began < self.sizes.nin_seconds:
            for rows in torch.randperm(len(x), generator=stream).to(self.device).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
                seen += len(rows)
                if time.perf_counter() - began > self.sizes.nin_seconds:
                    break
            self.wait()
        net.eval()
        took = time.perf_counter() - began
        with torch.no_grad():
            told = torch.cat([net(part.to(self.device)).argmax(1).cpu() for part in images.test_x.split(512)])
        accuracy = float((told == images.test_y).double().mean())
        return [{"epochs": seen / len(x), "images a second": seen / took, "accuracy": accuracy}]

    PARTS: ClassVar[dict[str, Callable[["Check"], list[Row]]]] = {
        "Tests marked gpu": tests,
        "The same as on the CPU": equality,
        "A step of the optimizers": steps,
        "Trials a second": trials,
        "Share of the peak of matrix products": products,
        "CUDA graphs": graphs,
        "The default fit, by the same time": fits,
        "Network-in-Network on CIFAR-10": network_in_network,
    }


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores (no GPU)"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4g}"
    return str(value)


def _markdown(rows: list[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return lines + ["| " + " | ".join(_text(row.get(name, "")) for name in names) + " |" for row in rows]


def main(words: Sequence[str] | None = None) -> int:
    """Run all parts and write the results; 0 if none failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="small sizes, also on a CPU; needs --out")
    parser.add_argument("--images", type=Path, help="folder that holds cifar-10")
    parser.add_argument("--out", type=Path, help=f"default {RESULTS.name} beside this file")
    names = [part.__name__ for part in Check.PARTS.values()]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="default all")
    options = parser.parse_args(words)
    if not options.dry and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --dry runs the same code on a CPU")
    if options.dry and options.out is None:
        parser.error("--dry measures nothing worth keeping: say with --out where its results go")
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    check = Check(device, SMALL if options.dry else LARGE, options.images, dry=options.dry)
    lines = ["# On a GPU" if device.type == "cuda" else "# A dry run, not on a GPU", ""]
    lines += [f"{_name(device)}; torch {torch.__version__}, Python {platform.python_version()}.", ""]
    failed = 0
    parts = {title: part for title, part in Check.PARTS.items() if part.__name__ in options.parts}
    for title, part in parts.items():
        began = time.perf_counter()
        lines += [f"## {title}", ""]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                lines += _markdown(part(check))
        except Exception:  # the others are to go on, whatever it is
            failed += 1
            lines += ["**Failed.**", "", "```", traceback.format_exc().strip(), "```"]
        took = time.perf_counter() - began
        lines += ["", f"In {took:.0f} s.", ""]
        print(f"{title}: {took:.0f} s", flush=True)
        # After each part, so that a machine that goes away takes nothing with it.
        (options.out or RESULTS).write_text("\n".join(lines), encoding="utf-8")
    print(f"{failed} of {len(parts)} parts failed; see {options.out or RESULTS}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
