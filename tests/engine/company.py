"""Members trained in several companies, to be compared bit by bit; also run as a process of its own, with other kernels.

``python -m tests.engine.company FIRST COUNT`` tries so many settings drawn from seeds and prints those that fail, with what
torch and MKL are told of the processor by ``ATEN_CPU_CAPABILITY`` and ``MKL_ENABLE_INSTRUCTIONS``.
"""

import random
import sys
from dataclasses import dataclass, fields

import numpy as np
import torch

from inna_tune.engine import (
    CrossEntropy,
    Member,
    Method,
    SquaredError,
    Training,
    outputs,
)
from inna_tune.nets import TabularNet
from inna_tune.nets.numeric import NUMERIC_EMBEDDINGS
from inna_tune.optim.decay import DECAY_LAWS
from tests.engine.tables import make_table

EPOCHS = 2

CHOICES = {
    "dtype": [torch.float32, torch.float64],
    "n_rows": [50, 90, 150, 300],
    "n_numeric": [1, 2, 5, 13],
    "n_others": [0, 3],
    "categories": [(), (), (3, 7)],
    "embedding": ["none", "none", *sorted(NUMERIC_EMBEDDINGS)],
    "dim": [2, 3, 4],
    "n_frequencies": [3, 16],
    "hidden": [(), (1,), (3,), (16,), (7, 5), (17, 33), (8, 1, 6), (54, 64)],
    "block": ["plain", "plain", "residual"],
    "activation": ["relu", "relu", "gelu", "silu", "mish", "selu"],
    "n_outputs": [1, 2, 3, 10],
    "batch_size": [20, 32, 64, 128, 512],
    "optimizer": ["inna", "inna", "innaprop", "sgd", "adamw", torch.optim.NAdam],
    "averaging": [None, 0.9],
    "calibrates": [False, True],
    "decay": list(DECAY_LAWS),
    "n_members": [2, 3, 6, 17],
    "weighted": [False, True],
    "scales": [False, True],
}


@dataclass(frozen=True)
class Setting:
    """A net, a table, and how the members are trained."""

    seed: int
    dtype: torch.dtype
    n_rows: int
    n_numeric: int
    n_others: int
    categories: tuple[int, ...]
    embedding: str
    dim: int
    n_frequencies: int
    hidden: tuple[int, ...]
    block: str
    activation: str
    n_outputs: int
    batch_size: int
    optimizer: str | type
    averaging: float | None
    calibrates: bool
    decay: str
    n_members: int
    weighted: bool
    scales: bool

    @classmethod
    def drawn(cls, seed):
        rng = random.Random(seed)
        return cls(seed, **{f.name: rng.choice(CHOICES[f.name]) for f in fields(cls) if f.name != "seed"})

    @property
    def net(self):
        return TabularNet(
            self.n_numeric + self.n_others + len(self.categories),
            self.hidden,
            self.n_outputs,
            n_numeric=self.n_numeric,
            categories=self.categories,
            numeric_embedding=self.embedding,
            embedding_dim=self.dim,
            n_frequencies=self.n_frequencies,
            block=self.block,
            activation=self.activation,
        )

    @property
    def loss(self):
        return SquaredError() if self.n_outputs == 1 else CrossEntropy()

    @property
    def table(self):
        return make_table(
            self.n_rows,
            self.n_numeric + self.n_others,
            categories=self.categories,
            n_outputs=self.n_outputs,
            dtype=self.dtype,
            weighted=self.weighted,
            regression=self.n_outputs == 1,
            seed=self.seed,
        )

    @property
    def members(self):
        rng = np.random.default_rng(self.seed)
        found = []
        for i in range(self.n_members):
            order = rng.permutation(self.n_rows)
            cut = int(rng.integers(self.n_rows // 3, self.n_rows - 5))
            n_validation = int(rng.integers(0, self.n_rows - cut))
            own = {} if self.calibrates else {"lr": 0.05, "alpha": 0.5, "beta": 0.2}
            found.append(
                Member(
                    order[:cut],
                    order[cut : cut + n_validation],
                    i,
                    decay=self.decay,
                    dropout=0.2 * (i % 2),
                    weight_decay=0.01 * (i % 3),
                    label_smoothing=0.1 * (i % 3 == 1) * (self.n_outputs > 1),
                    **own,
                )
            )
        return found


def trained(setting, members, *, width, dropped=(), breaks=False):
    """Train to the end: in stacks of a width, without those dropped after an epoch, and with a break after it or without."""

    def training(progress=None):
        return Training(
            setting.net,
            setting.table,
            members,
            setting.loss,
            batch_size=setting.batch_size,
            max_epochs=EPOCHS,
            method=Method(
                setting.optimizer,
                averaging=setting.averaging,
                gradient_clip=2.0,
                longest_step=1e-3 if setting.seed % 2 else None,
                scale_tensors=setting.scales,
            ),
            width=width,
            stacked=True,
            progress=progress,
        )

    found = training()
    found.run(1)
    found.drop(dropped)
    if breaks:
        found = training([found.progress(i) for i in range(len(members))])
    found.run()
    return found.results


def same(ours, theirs):
    """Whether two results of a member are the same bits."""
    if (ours.weights is None) != (theirs.weights is None):
        return False
    told = [
        (r.best_epoch, r.epochs, r.stop_reason, r.lr, r.alpha, r.beta, r.curvature) for r in (ours, theirs)
    ]
    losses = [[r.history[name] for name in ("train_loss", "validation_loss", "lr")] for r in (ours, theirs)]
    return (
        (ours.weights is None or torch.equal(ours.weights, theirs.weights))
        and repr(told[0]) == repr(told[1])
        and repr(losses[0]) == repr(losses[1])
    )


def broken_promises(setting):
    """What of a member depends on its company, in words; none if nothing does."""
    members, last = setting.members, setting.n_members - 1
    alone = {i: trained(setting, [members[i]], width=1)[0] for i in sorted({0, 1, last // 2, last})}
    found = []
    for width in sorted({2, setting.n_members}):
        together = trained(setting, members, width=width)
        found += [f"{i} in stacks of {width}" for i in alone if not same(together[i], alone[i])]
    # Those that stay move to other places in their stack.
    turned = members[::-1]
    for gone in (range(0, setting.n_members, 2), range(1, setting.n_members, 2)):
        together = trained(setting, turned, width=setting.n_members, dropped=gone, breaks=gone.start == 1)
        found += [
            f"{i} without {gone}"
            for i in alone
            if last - i not in gone and not same(together[last - i], alone[i])
        ]
    weights = [r.weights for r in alone.values() if r.weights is not None]
    if weights:
        # Tables as numpy makes them begin anywhere in memory.
        x = torch.cat([setting.table.x[:1], setting.table.x])[1:]
        told = outputs(setting.net, torch.stack(weights), x)
        for i, weight in enumerate(weights):
            if not torch.equal(outputs(setting.net, weight[None], setting.table.x)[0], told[i]):
                found.append(f"outputs of {i}")
    return found


def main(first, count):
    torch.set_num_threads(1)
    failed = 0
    for seed in range(first, first + count):
        setting = Setting.drawn(seed)
        if problems := broken_promises(setting):
            failed += 1
            sys.stdout.write(f"{setting}\n    {', '.join(problems)}\n")
    sys.stdout.write(f"{count - failed} of {count} settings kept the promise\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
