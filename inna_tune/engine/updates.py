"""The optimizers that can step a population, behind one face.

Those of `inna_tune.optim.optimizers` take settings of shape [P, 1]; any other class of torch.optim steps each member by itself.
"""

import inspect
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from inna_tune.nets.protocol import Matrix
from inna_tune.optim.optimizers import OPTIMIZERS, Kind, named, record_of

Settings: TypeAlias = Mapping[str, Any]


def make_updates(
    kind: Kind,
    rows: Sequence[Tensor],
    settings: Settings,
    options: Settings,
    *,
    stacked: bool,
    shapes: Sequence[tuple[int, ...]] | None = None,
    matrices: Mapping[int, Matrix] | None = None,
) -> "_Together | _Separate":
    """What steps rows of weights, one row a member, by the gradients they carry.

    Parameters
    ----------
    kind : str or subclass of torch.optim.Optimizer
        One of `inna_tune.optim.optimizers.OPTIMIZERS`, or a class of torch.
    rows : sequence of Tensor
        Each [P, n]; changed in place.
    settings : mapping of str to Tensor of shape [P, 1]
        ``lr``, ``alpha``, ``beta`` and ``weight_decay``.
    options : mapping
        Further arguments of the optimizer, shared by all members.
    stacked : bool
        False for a single member that need not step as in company: its settings become plain numbers.
    shapes : sequence of tuple of int, optional
        Of each row of one member, as a class of torch sees it; [n] if not given.
    matrices : mapping of int to Matrix, optional
        Which of the rows are weights of hidden layers.
    """
    record = record_of(kind)
    if record.build is None:
        assert not isinstance(kind, str)
        return _Separate(kind, rows, settings, options, shapes or [tuple(r.shape[1:]) for r in rows])
    used: dict[str, Any] = {name: settings[name] for name in (*record.usual, "weight_decay")}
    if not stacked:
        used = {name: float(value) for name, value in used.items()}
    if not bool((settings["weight_decay"] != 0).any()):
        used["weight_decay"] = 0.0
    if record.is_capturable:
        used["capturable"] = stacked and rows[0].is_cuda
    if record.steps_matrices:
        used["matrices"] = matrices or {}
    return _Together(record.build(rows, **{**record.options, **used, **options}))


def check_optimizer(kind: Any, options: Any) -> None:
    """Refuse what `make_updates` cannot make, or what cannot step, before anything is trained.

    Raises
    ------
    ValueError
        If the name is unknown, the class is no optimizer, needs a closure or cannot step a net's tensors, or an option is none
        of its arguments or out of its range.
    """
    choices = f"one of {', '.join(OPTIMIZERS)}, or another class of torch.optim"
    is_class = isinstance(kind, type) and issubclass(kind, Optimizer)
    if not is_class and not (isinstance(kind, str) and kind in OPTIMIZERS):
        raise ValueError(f"optimizer={kind!r}: must be {choices}.")
    kind = named(kind)
    record = record_of(kind)
    if record.build is None:
        closure = inspect.signature(kind.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"optimizer={kind!r}: evaluates the loss several times a step, which a population cannot; choose {choices}."
            )
    known = set(record.options)
    unknown = sorted(str(option) for option in set(options or {}) - known)
    if unknown:
        raise ValueError(
            f"optimizer_params={options!r}: {', '.join(unknown)} is none of the options of optimizer={kind!r}; "
            f"it has {', '.join(sorted(known)) or 'none'}."
        )
    if isinstance(kind, str) and not options:
        return  # one of ours as it comes steps any tensors, and trying it takes a fortieth of a small fit
    try:
        with torch.no_grad():
            _try(kind, dict(options or {}))
    except Exception as error:  # whatever a class of the caller's own raises
        reason = " ".join(str(error).split()) or type(error).__name__
        where = f" with optimizer_params={options!r}" if options else ""
        raise ValueError(
            f"optimizer={kind!r}{where}: cannot step the tensors of a net ({reason}); choose {choices}"
            + (", or other optimizer_params." if options else ".")
        ) from error


def _try(kind: Kind, options: Settings) -> None:
    """One step of a single member that has a matrix, a matrix of one row and a vector, as nets have."""
    shapes: list[tuple[int, ...]] = [(3, 2), (1, 2), (2,)]
    rows = [torch.nn.Parameter(torch.ones(1, math.prod(shape), device="cpu")) for shape in shapes]
    for row in rows:
        row.grad = torch.ones_like(row)
    settings = {
        name: torch.full((1, 1), 0.01, device="cpu") for name in ("lr", "alpha", "beta", "weight_decay")
    }
    updates = make_updates(
        kind, rows, settings, options, stacked=True, shapes=shapes, matrices={0: Matrix((3, 2), 0)}
    )
    updates.step(settings["lr"])


def _is_each(value: Any) -> bool:
    """Whether something that is remembered has an axis of members, or of a member's own."""
    return isinstance(value, Tensor) and value.dim() > 0


def _own(member: int) -> Callable[[Tensor], Tensor]:
    """What copies of a tensor of all members the part of one."""
    return lambda tensor: tensor[member : member + 1].clone()


def _each(state: Mapping[str, Any], part: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """What is remembered, a part of each tensor that has an axis."""
    return {name: part(value) if _is_each(value) else value for name, value in state.items()}


class _Together:
    """An optimizer whose settings may have a value a member."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        (self._group,) = optimizer.param_groups
        # Without what torch wraps it in: the profiler's marks, hooks that nobody has set, and another no_grad.
        self._step = inspect.unwrap(type(optimizer).step)

    def announce(self, rates: Tensor) -> None:
        """Tell the step sizes of all steps to come, [steps, P, 1], of which `step` is then given one after the other."""

    def step(self, rate: Any) -> None:
        """One step with the given step sizes: [P, 1], or a number where a single member is not stacked."""
        self._group["lr"] = rate
        self._step(self.optimizer)

    def take(self, member: int) -> list[dict[str, Any]]:
        """State of one member for each of the rows: tensors with a leading axis of one, and numbers."""
        return [_each(self.optimizer.state[row], _own(member)) for row in self._group["params"]]

    def give(self, n_members: int) -> list[list[dict[str, Any]]]:
        """What `take` gives of every member; the state of each row goes as it is copied."""
        given: list[list[dict[str, Any]]] = [[] for _ in range(n_members)]
        for row in self._group["params"]:
            state = self.optimizer.state.pop(row, {})
            for member, states in enumerate(given):
                states.append(_each(state, _own(member)))
            del state
        return given

    def put(self, states: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Give every member the state that `take` gave."""
        for i, row in enumerate(self._group["params"]):
            own = [dict(state[i]) for state in states]
            if not own[0]:
                continue
            for state in own:
                # INNA's velocity is -scale · momentum, and members stacked share a scale.
                if "momentum" in state and state["scale"] != own[0]["scale"]:
                    state["momentum"] = state["momentum"] * (state["scale"] / own[0]["scale"])
            self.optimizer.state[row] = {
                name: torch.cat([state[name] for state in own]).to(row.device) if _is_each(value) else value
                for name, value in own[0].items()
            }

    def adopt(self, older: Any, index: Tensor) -> None:
        """Take over the state of some members of ``older``."""
        for new, old in zip(self._group["params"], older._group["params"], strict=True):
            if state := older.optimizer.state.get(old):
                self.optimizer.state[new] = _each(state, lambda t: t[index])


class _Separate:
    """An optimizer of torch for every member, with the methods of `_Together`."""

    def __init__(
        self,
        kind: type[Optimizer],
        rows: Sequence[Tensor],
        settings: Settings,
        options: Settings,
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        self._rows = rows
        self._params = [
            [torch.nn.Parameter(r.detach()[i].view(shape)) for r, shape in zip(rows, shapes, strict=True)]
            for i in range(len(rows[0]))
        ]
        takes_decay = "weight_decay" in inspect.signature(kind).parameters
        self.optimizers = []
        for i, params in enumerate(self._params):
            own: dict[str, Any] = {"lr": float(settings["lr"][i])}
            if takes_decay and float(settings["weight_decay"][i]) > 0:
                own["weight_decay"] = float(settings["weight_decay"][i])
            self.optimizers.append(kind(params, **own, **options))
        self._announced: deque[list[float]] = deque()

    def announce(self, rates: Tensor) -> None:
        # Each member's step wants its number on the host.
        self._announced = deque(rates.flatten(1).tolist())

    def step(self, rate: Any) -> None:
        if self._announced:
            rates = self._announced.popleft()
        else:
            rates = rate.flatten().tolist() if isinstance(rate, Tensor) else [rate]
        for i, (params, optimizer, own) in enumerate(zip(self._params, self.optimizers, rates, strict=True)):
            if own == 0.0:  # no batch of its own is left in this epoch
                continue
            for param, row in zip(params, self._rows, strict=True):
                param.grad = None if row.grad is None else row.grad[i].view_as(param)
            for group in optimizer.param_groups:
                group["lr"] = own
            optimizer.step()

    def take(self, member: int) -> list[dict[str, Any]]:
        state = self.optimizers[member].state
        return [deepcopy(dict(state[param])) if param in state else {} for param in self._params[member]]

    def give(self, n_members: int) -> list[list[dict[str, Any]]]:
        return [self.take(member) for member in range(n_members)]

    def put(self, states: Sequence[Sequence[dict[str, Any]]]) -> None:
        for optimizer, params, own in zip(self.optimizers, self._params, states, strict=True):
            for param, state in zip(params, own, strict=True):
                if state:
                    # Counts, which have no axis, stay where an optimizer of torch keeps them.
                    optimizer.state[param] = {
                        name: value.to(param.device, copy=True) if _is_each(value) else deepcopy(value)
                        for name, value in state.items()
                    }

    def adopt(self, older: Any, index: Tensor) -> None:
        for place, i in enumerate(index.tolist()):
            state = older.optimizers[i].state
            for new, old in zip(self._params[place], older._params[i], strict=True):
                if old in state:
                    self.optimizers[place].state[new] = state[old]
