"""What settings mean to the engine: the members, the net, the method and the device that they ask for."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inna_tune.engine import Jury, Member, Method
from inna_tune.estimators.checks import layer_sizes
from inna_tune.estimators.encoded import EncodedTable
from inna_tune.estimators.linear_start import linear_starts
from inna_tune.estimators.member_plan import MemberPlan, parts_left_out, plan_members
from inna_tune.estimators.metrics import ScoreOfRows
from inna_tune.estimators.parameters import Parameters
from inna_tune.estimators.pure import pure_numbers_of
from inna_tune.estimators.splitting import Rows, draw_seeds, split_off
from inna_tune.nets import LinearStart, ModuleNet, Net, TabularNet

# Epochs, and the least steps: on a small table an epoch is a step or two, and its validation loss is noise for many of them.
_PATIENCE, _MIN_PATIENCE_STEPS = 15, 90
# The loss of what nets predict together is smoother. Of 49 tables six would have been stopped at another epoch, with a loss of
# rows left out that is higher by .5, .3 and .1% and less, after 27% fewer epochs; of 20 tables' single nets gapminder's would
# have lost 16%, Carseats' 11%.
_PATIENCE_TOGETHER, _MIN_STEPS_TOGETHER = 8, 60

# Linear pieces of an embedded number, and how evenly they lie, by how numbers are scaled. Of 48 pieces in place of 16 places
# on a map (california) gain 3.5%, and no table loses 1%. Of 64, of which two in five lie evenly, churn gains 3.5%: how often
# somebody has called the service is 0 or 1 for most, and tells the more the larger it is. Who scales as it was before has the
# net of before, and so have the studies that were begun with it.
_PIECES = {"blend": (64, 0.4), "scale": (48, 0.0), "quantile": (48, 0.0)}
_WAVES = 16


class Recipe(Parameters):
    """Parameters, and what is made by them before anything trains."""

    def _seeds(self, n_members: int) -> list[int]:
        """Seed of the split, then one a member, from ``random_state``; the global stream is never touched."""
        return draw_seeds(self.random_state, 1 + n_members)

    def _plan_for(self, n_rows: int, *, begun_with: int | None = None) -> MemberPlan:
        """What ``n_members`` comes to on a table of so many rows; a fit that goes on has the members it was begun with."""

        def plan_of(n_members: int | str) -> MemberPlan:
            return plan_members(
                n_members,
                n_rows,
                batch_size=int(self.batch_size),
                max_epochs=self.max_epochs,
                early_stopping=bool(self.early_stopping),
                validation_fraction=float(self.validation_fraction),
            )

        plan = plan_of(self.n_members)
        if self.n_members == "auto" and begun_with not in (None, plan.n_members):
            return plan_of(begun_with or 1)
        return plan

    def _members_for(
        self,
        table: EncodedTable,
        plan: MemberPlan,
        *,
        row: int = 0,
        used_features: tuple[int, int] | int | None = None,
        deadline: float | None = None,
    ) -> list[Member]:
        """The members that a fit on a table trains, where its first row is that of the engine's table at ``row``.

        ``deadline`` is the value of `inna_tune.clock` by which they are to be trained, where there is one.
        """
        seed, *member_seeds = self._seeds(plan.n_members)
        is_judged = plan.n_folds > 0
        if table.n_validation:
            everything = np.arange(len(table.target), dtype=np.int64)
            parts = [(everything[: table.n_train], everything[table.n_train :])] * plan.n_members
        else:
            parts = parts_left_out(plan, table.x, table.target, seed)
            is_judged = bool(parts)
        if not parts:
            parts = [self._split(table.target, seed)] * plan.n_members
        measure = None
        watched = np.unique(np.concatenate([validation for _, validation in parts]))
        if table.judged is not None and len(watched):
            measure = ScoreOfRows(self.eval_metric, table.judged, row)
            measure.check(watched)
        starts: list[LinearStart | None] = [None] * plan.n_members
        if is_judged and self.linear_path and self.module is None:
            models = linear_starts(table, parts[: plan.n_linear], deadline=deadline)
            starts[: len(models)] = models
        juries = [Jury(number) for number in range(2)]
        return [
            replace(
                self._member(
                    train + row,
                    validation + row,
                    s,
                    used_features,
                    stops_smoothly=is_judged and measure is None,
                ),
                jury=juries[start is None] if is_judged else None,
                measure=measure,
                linear=start,
            )
            for (train, validation), start, s in zip(parts, starts, member_seeds, strict=True)
        ]

    def _split(self, target: npt.NDArray[Any], seed: int) -> tuple[Rows, Rows]:
        """Rows to train on and rows to watch for early stopping."""
        if not self.early_stopping:
            rows = np.arange(len(target), dtype=np.int64)
            return rows, rows[:0]
        return split_off(target, float(self.validation_fraction), seed)

    def _member(
        self,
        train: Rows,
        validation: Rows,
        seed: int,
        used_features: tuple[int, int] | int | None = None,
        *,
        stops_smoothly: bool = False,
    ) -> Member:
        """A member with this estimator's settings."""
        numbers: dict[str, Any] = dict(pure_numbers_of(self))
        lr, alpha, beta = (
            None if value == "auto" else float(value) for value in (self.lr, self.alpha, self.beta)
        )
        return Member(
            train,
            validation,
            seed,
            lr=lr,
            alpha=alpha,
            beta=beta,
            **numbers,
            decay=self.decay,
            decay_power=self.decay_power,
            weight_decay=float(self.weight_decay),
            dropout=float(self.dropout),
            label_smoothing=float(getattr(self, "label_smoothing", 0.0)),
            patience=self._patience_for(len(train), stops_smoothly=stops_smoothly),
            used_features=used_features,
        )

    def _layer_sizes(self) -> tuple[int, ...]:
        """What ``hidden_layer_sizes`` means, whichever way it was written, so that "8-8" and (8, 8) are one setting."""
        return layer_sizes(self.hidden_layer_sizes)

    def _build_net(
        self, sections: tuple[int, int, int], categories: tuple[int, ...], out_features: int
    ) -> Net:
        """The net for a table encoded in sections of these widths, with these numbers of codes."""
        if self.module is not None:
            return ModuleNet(self.module, sum(sections), out_features)
        n_frequencies, evenness = _WAVES, 0.0
        if self.numeric_embedding == "piecewise":
            n_frequencies, evenness = _PIECES[self._new_encoder().numeric]
        return TabularNet(
            sum(sections),
            self._layer_sizes(),
            out_features,
            n_numeric=sections[0],
            categories=categories,
            numeric_embedding=self.numeric_embedding if sections[0] else "none",
            n_frequencies=n_frequencies,
            evenness=evenness,
            block=self.block,
            activation=self.activation,
            linear_path=bool(self.linear_path),
        )

    def _method(self) -> Method:
        return Method(
            optimizer=self.optimizer,
            optimizer_params={} if self.optimizer_params is None else self.optimizer_params,
            scale_tensors=bool(self.scale_tensors),
            gradient_clip=self.gradient_clip,
            # What nets of another kind need is not known: some begin short and have far to go.
            longest_step=self.longest_step if self.module is None else None,
            averaging=self.averaging,
            precision=self.precision,  # type: ignore[arg-type]
        )

    def _patience_for(self, n_rows: int, *, stops_smoothly: bool) -> int | None:
        if not self.early_stopping:
            return None
        epochs, least_steps = _PATIENCE, _MIN_PATIENCE_STEPS
        if self.patience != "auto":
            epochs = int(self.patience)
        elif stops_smoothly:
            epochs, least_steps = _PATIENCE_TOGETHER, _MIN_STEPS_TOGETHER
        steps = -(-n_rows // int(self.batch_size))
        return max(epochs, -(-least_steps // steps))

    def _torch_device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
