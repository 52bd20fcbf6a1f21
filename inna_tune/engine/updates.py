"""The optimizers that can step a population, behind one face.

INNA and INNAprop take settings of shape [P, 1] as they are. SGD with momentum and AdamW are written here for such
settings, so that members can be compared with INNA's at the same cost; any other class of torch.optim steps each member by
itself.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from inna_tune.engine.batches import FULL_VECTORS
from inna_tune.optim.inna import INNA
from inna_tune.optim.innaprop import INNAprop

Kind: TypeAlias = str | type[Optimizer]
Settings: TypeAlias = Mapping[str, Any]

NAMED = ("inna", "innaprop", "sgd", "adamw")
MOMENTUM = 0.9
# Of those whose step has no natural scale, as their papers have it.
DEFAULT_LR = {"innaprop": 1e-3, "adamw": 1e-3}


class Updates(Protocol):
    """Steps rows of weights, one row a member, by the gradients they carry."""

    def step(self, rate: Any) -> None:
        """One step with the given step sizes: [P, 1], or a number where a single member is not stacked."""
        ...

    def take(self, member: int) -> list[dict[str, Any]]:
        """State of one member for each of the rows: tensors with a leading axis of one, and numbers."""
        ...

    def put(self, states: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Give every member the state that `take` gave."""
        ...

    def adopt(self, older: Any, index: Tensor) -> None:
        """Take over the state of some members of ``older``."""
        ...


def make_updates(
    kind: Kind, rows: Sequence[Tensor], settings: Settings, options: Settings, *, stacked: bool
) -> Updates:
    """The updates of a population.

    Parameters
    ----------
    kind : str or subclass of torch.optim.Optimizer
        One of `NAMED`, or a class of torch.
    rows : sequence of Tensor
        Each [P, n]; changed in place.
    settings : mapping of str to Tensor of shape [P, 1]
        ``lr``, ``alpha``, ``beta`` and ``weight_decay``.
    options : mapping
        Further arguments of the optimizer, shared by all members.
    stacked : bool
        False for a single member that need not step as in company: its settings become plain numbers.
    """
    if not isinstance(kind, str):
        return _Separate(kind, rows, settings, options)
    hyper: Callable[[Tensor], Any] = (lambda t: t) if stacked else float
    used = {name: hyper(value) for name, value in settings.items()}
    if not bool((settings["weight_decay"] != 0).any()):
        used["weight_decay"] = 0.0
    capturable = stacked and rows[0].is_cuda
    if kind in ("inna", "innaprop"):
        own: Any = INNA if kind == "inna" else INNAprop
        return _Together(own(rows, **used, capturable=capturable, **options))
    plain = {name: used[name] for name in ("lr", "weight_decay")}
    return _Together((_SGD if kind == "sgd" else _AdamW)(rows, plain | dict(options)))


def check_optimizer(kind: Any, options: Any) -> None:
    """Refuse what `make_updates` cannot make, before anything is trained.

    Raises
    ------
    ValueError
        If the name is unknown, the class is no optimizer or needs a closure, or an option is none of its arguments.
    """
    if isinstance(kind, str):
        if kind not in NAMED:
            raise ValueError(
                f"optimizer={kind!r}: must be one of {', '.join(NAMED)}, or a class of torch.optim."
            )
        known = {
            "inna": {"decoupled_weight_decay"},
            "innaprop": {"sigma", "eps"},
            "sgd": {"momentum", "nesterov"},
            "adamw": {"betas", "eps"},
        }[kind]
    elif isinstance(kind, type) and issubclass(kind, Optimizer):
        closure = inspect.signature(kind.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"optimizer={kind!r}: evaluates the loss several times a step, which a population cannot; choose another."
            )
        known = set(inspect.signature(kind).parameters) - {"params", "lr", "weight_decay", "maximize"}
    else:
        raise ValueError(f"optimizer={kind!r}: must be one of {', '.join(NAMED)}, or a class of torch.optim.")
    unknown = sorted(set(options or {}) - known)
    if unknown:
        raise ValueError(
            f"optimizer_params={options!r}: {', '.join(unknown)} is none of the options of optimizer={kind!r}; "
            f"it has {', '.join(sorted(known)) or 'none'}."
        )


class _Together:
    """An optimizer whose settings may have a value a member."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        (self._group,) = optimizer.param_groups
        # Without what torch wraps it in: the profiler's marks, hooks that nobody has set, and another no_grad.
        self._step = inspect.unwrap(type(optimizer).step)

    def step(self, rate: Any) -> None:
        self._group["lr"] = rate
        self._step(self.optimizer)

    def take(self, member: int) -> list[dict[str, Any]]:
        return [
            {
                name: value[member : member + 1].clone()
                if isinstance(value, Tensor) and value.dim() > 0
                else value
                for name, value in self.optimizer.state[row].items()
            }
            for row in self._group["params"]
        ]

    def put(self, states: Sequence[Sequence[dict[str, Any]]]) -> None:
        for i, row in enumerate(self._group["params"]):
            own = [dict(state[i]) for state in states]
            if not own[0]:
                continue
            for state in own:
                # INNA's velocity is -scale · momentum, and members stacked share a scale.
                if "momentum" in state and state["scale"] != own[0]["scale"]:
                    state["momentum"] = state["momentum"] * (state["scale"] / own[0]["scale"])
            self.optimizer.state[row] = {
                name: torch.cat([state[name] for state in own]).to(row.device)
                if isinstance(value, Tensor) and value.dim() > 0
                else value
                for name, value in own[0].items()
            }

    def adopt(self, older: Any, index: Tensor) -> None:
        for new, old in zip(self._group["params"], older._group["params"], strict=True):
            state = older.optimizer.state.get(old)
            if state:
                self.optimizer.state[new] = {
                    name: value[index] if isinstance(value, Tensor) and value.dim() > 0 else value
                    for name, value in state.items()
                }


class _Separate:
    """An optimizer of torch for every member."""

    def __init__(
        self, kind: type[Optimizer], rows: Sequence[Tensor], settings: Settings, options: Settings
    ) -> None:
        self._rows = rows
        self._params = [[torch.nn.Parameter(r.detach()[i]) for r in rows] for i in range(len(rows[0]))]
        takes_decay = "weight_decay" in inspect.signature(kind).parameters
        self.optimizers = []
        for i, params in enumerate(self._params):
            own: dict[str, Any] = {"lr": float(settings["lr"][i])}
            if takes_decay and float(settings["weight_decay"][i]) > 0:
                own["weight_decay"] = float(settings["weight_decay"][i])
            self.optimizers.append(kind(params, **own, **options))

    def step(self, rate: Any) -> None:
        rates = rate.flatten().tolist() if isinstance(rate, Tensor) else [rate]
        for i, (params, optimizer, own) in enumerate(zip(self._params, self.optimizers, rates, strict=True)):
            if own == 0.0:  # no batch of its own is left in this epoch
                continue
            for param, row in zip(params, self._rows, strict=True):
                param.grad = None if row.grad is None else row.grad[i]
            for group in optimizer.param_groups:
                group["lr"] = own
            optimizer.step()

    def take(self, member: int) -> list[dict[str, Any]]:
        state = self.optimizers[member].state
        return [deepcopy(dict(state[param])) if param in state else {} for param in self._params[member]]

    def put(self, states: Sequence[Sequence[dict[str, Any]]]) -> None:
        for optimizer, params, own in zip(self.optimizers, self._params, states, strict=True):
            for param, state in zip(params, own, strict=True):
                if state:
                    optimizer.state[param] = deepcopy(state)

    def adopt(self, older: Any, index: Tensor) -> None:
        for place, i in enumerate(index.tolist()):
            state = older.optimizers[i].state
            for new, old in zip(self._params[place], older._params[i], strict=True):
                if old in state:
                    self.optimizers[place].state[new] = state[old]


class _Stacked(Optimizer):
    """Base of the two below: lists of what has a gradient, and weights that shrink."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                lr = group["lr"]
                # A member whose step is zero stands still, state and all.
                moving = (lr != 0) if isinstance(lr, Tensor) else None
                if moving is not None and bool(moving.all()):
                    moving = None
                for p in group["params"]:
                    if p.grad is not None:
                        grad = p.grad if moving is None else torch.where(moving, p.grad, 0.0)
                        self._update(group, p, grad, self.state[p], moving)

    def _update(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, state: dict[str, Any], moving: Tensor | None
    ) -> None:
        raise NotImplementedError


class _SGD(_Stacked):
    """SGD with momentum: v ← μv + g, θ ← θ − γv, with the gradient λθ of the weight decay in g."""

    def __init__(self, rows: Sequence[Tensor], settings: dict[str, Any]) -> None:
        super().__init__(rows, {"momentum": MOMENTUM, "nesterov": False, "weight_decay": 0.0} | settings)

    def _update(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, state: dict[str, Any], moving: Tensor | None
    ) -> None:
        decay, momentum = group["weight_decay"], group["momentum"]
        if isinstance(decay, Tensor) or decay != 0.0:
            grad = grad + decay * p
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        velocity = state["velocity"]
        fresh = momentum * velocity + grad
        velocity.copy_(fresh if moving is None else torch.where(moving, fresh, velocity))
        p.sub_(group["lr"] * (grad + momentum * velocity if group["nesterov"] else velocity))


class _AdamW(_Stacked):
    """AdamW, as torch has it; members that stand still are not counted a step."""

    def __init__(self, rows: Sequence[Tensor], settings: dict[str, Any]) -> None:
        super().__init__(rows, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0} | settings)

    def _update(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, state: dict[str, Any], moving: Tensor | None
    ) -> None:
        first, second = group["betas"]
        if not state:
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
            state["count"] = p.new_zeros(len(p), 1).expand(p.shape).clone()[:, :1]
        count, mean, square = state["count"], state["mean"], state["square"]
        count += 1 if moving is None else moving
        keep_first, keep_second = (
            beta if moving is None else torch.ones_like(count).masked_fill(moving, beta)
            for beta in (first, second)
        )
        # Where a member stands still its gradient is zero. NOTE: numbers, since as tensors they would round another way.
        mean.mul_(keep_first).add_(grad * (1 - first))
        square.mul_(keep_second).add_(grad.square() * (1 - second))
        decay = group["weight_decay"]
        if isinstance(decay, Tensor) or decay != 0.0:
            p.mul_(1.0 - group["lr"] * decay)
        # Repeated, so that the powers of every member are computed by whole vectors, with one rounding.
        counted = count.clamp(min=1).repeat(1, FULL_VECTORS)
        below_first, below_second = ((1 - beta**counted)[:, :1] for beta in (first, second))
        direction = mean / below_first / ((square / below_second).sqrt() + group["eps"])
        p.sub_(group["lr"] * direction)
