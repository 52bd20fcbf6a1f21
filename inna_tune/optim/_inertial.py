"""What INNA and INNAprop share: hyper-parameters, state, its saving and loading, and the choice of how to step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from inna_tune.optim._checks import (
    FUSED_DEVICES,
    PLAIN_TYPES,
    Bound,
    check_fused,
    check_number,
    check_parameters,
    check_tensor,
)
from inna_tune.optim._low_precision import LOW_PRECISION, narrow, no_remainder, widen
from inna_tune.optim._step import (
    Batch,
    Number,
    foreach_step,
    fused_step,
    has_tensors,
    is_lean,
    kernel_scale,
    lean_step,
    shrink,
    single_step,
)
from inna_tune.optim._uncompiled import UncompiledOptimizer

# How an optimizer steps is a property of the machine it runs on, not of the run that is resumed.
_EXECUTION_OPTIONS = ("foreach", "fused", "capturable")


class InertialNewton(UncompiledOptimizer):
    """Base of INNA and INNAprop; subclasses say how gradients and weights are prepared before the inertial step."""

    _bounds: ClassVar[dict[str, Bound]] = {
        "lr": Bound(0.0),
        "alpha": Bound(0.0),
        "beta": Bound(0.0, open=True),
        "weight_decay": Bound(0.0),
    }
    _state_tensors: ClassVar[tuple[str, ...]] = ("momentum",)
    # What the groups of every version had: by these a state is told from another optimizer's.
    _identity: ClassVar[tuple[str, ...]] = ("lr", "alpha", "beta")

    # ---- hyper-parameters -------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, with the checks made at construction.

        Parameters
        ----------
        param_group : dict
            ``params`` and the hyper-parameters that differ from the defaults.

        Raises
        ------
        ValueError
            If a hyper-parameter or a parameter is one this optimizer cannot work with.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
        except ValueError:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        check_parameters(group["params"], type(self).__name__)
        if group["differentiable"]:
            raise ValueError(
                f"differentiable=True: {type(self).__name__} changes weights in place, and no gradient flows through its "
                "step; leave it False"
            )
        if group["foreach"] and group.get("fused"):
            raise ValueError("foreach=True and fused=True exclude each other: set one of them, or neither")
        if group.get("fused"):
            check_fused(group["params"])
        for key, bound in self._bounds.items():
            if isinstance(group[key], Tensor):
                check_tensor(key, group[key], bound, group)
        self._check_numbers(group)

    def _factor(self, group: dict[str, Any]) -> Number:
        """How many times a gradient counts."""
        return 1.0

    def _check_numbers(self, group: dict[str, Any]) -> None:
        """Make floats of the hyper-parameters, which a scheduler or a caller may have set to something else."""
        for key, bound in self._bounds.items():
            value = group[key]
            if type(value) is float and bound.low < value < math.inf:
                continue
            if not isinstance(value, Tensor):
                group[key] = check_number(key, value, bound)

    # ---- state ------------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state; ``foreach``, ``fused`` and ``capturable`` stay as they are here.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned, from an optimizer of this class with the same parameter shapes.

        Raises
        ------
        ValueError
            If the state is another optimizer's, or its shapes are not those of the parameters.
        """
        options = [{key: group.get(key) for key in _EXECUTION_OPTIONS} for group in self.param_groups]
        taken: dict[str, Any] = {}

        def check(_: Optimizer, final: dict[str, Any]) -> None:
            self._check_state_dict(final)
            taken.update(final)

        def adapt(_: Optimizer) -> None:
            self._adapt(taken, options)

        # As hooks of our own, the last before and the first after torch's part: what is loaded is what a caller's hooks
        # have made of the state, and the hooks that a caller has set for afterwards find it whole.
        hooks = [
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(adapt, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def _adapt(self, state_dict: dict[str, Any], options: list[dict[str, Any]]) -> None:
        """Bring what torch has loaded of ``state_dict`` to this optimizer's way of stepping and to the parameters."""
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        for group, option in zip(self.param_groups, options, strict=True):
            group.update({key: value for key, value in option.items() if key in group})
            if "step" in group:
                group["step"] = counter(group["step"], group)
            for key in self._bounds:
                if isinstance(group[key], Tensor):
                    group[key] = _placed(group[key], group)
        for (group, p), i in zip(self._parameters(), saved_ids, strict=True):
            saved = state_dict["state"].get(i, {})
            # NOTE: Optimizer.load_state_dict has cast every tensor to the parameter's dtype, which would round the
            # float32 velocity of a bfloat16 weight; and it keeps the saved strides, which the kernel cannot read.
            for key in self._state_tensors:
                if key in saved:
                    self.state[p][key] = zeros_for(p).copy_(saved[key])
            if p.dtype in LOW_PRECISION and saved:
                # The state of a float32 twin has none.
                self.state[p]["remainder"] = no_remainder(p).copy_(
                    saved.get("remainder", torch.zeros((), device="cpu"))
                )
            if "updates" in saved:
                self.state[p]["updates"] = counter(saved["updates"], group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what `load_state_dict` or pickle has read; options that an older version had not are as by default."""
        super().__setstate__(state)
        for name, usual in self._options().items():
            for options in (self.defaults, *self.param_groups):
                options.setdefault(name, usual)

    def _options(self) -> dict[str, Any]:
        """Arguments that need not be given, with their defaults."""
        arguments = inspect.signature(type(self)).parameters
        return {n: each.default for n, each in arguments.items() if each.default is not each.empty}

    def _parameters(self) -> list[tuple[dict[str, Any], Tensor]]:
        return [(group, p) for group in self.param_groups for p in group["params"]]

    def _check_state_dict(self, state_dict: dict[str, Any]) -> None:
        name = type(self).__name__
        own_state = {*self._state_tensors, "scale", "remainder", "updates"}
        groups = state_dict["param_groups"]
        missing = []
        if any(key not in group for group in groups for key in self._identity):
            own = {*self._identity, *self._options()}
            missing = sorted({key for group in groups for key in own if key not in group})
        saved_ids = [i for group in groups for i in group["params"]]
        states = {i: state_dict["state"][i] for i in saved_ids if i in state_dict["state"]}
        strange = sorted({key for state in states.values() for key in state if key not in own_state})
        if missing or strange:
            found = [f"its parameter groups lack {missing}"] * bool(missing)
            found += [f"its state holds {strange}"] * bool(strange)
            raise ValueError(
                f"state_dict is not that of {name}: {' and '.join(found)}. Load it into the optimizer that wrote it, "
                f"or start {name} without it"
            )
        # Optimizer.load_state_dict tells of differing numbers of groups or parameters.
        for i, (_, p) in zip(saved_ids, self._parameters(), strict=False):
            for key, value in states.get(i, {}).items():
                if key in self._state_tensors and value.shape != p.shape:
                    raise ValueError(
                        f"state_dict holds {key!r} of shape {tuple(value.shape)} for parameter {i}, whose shape is "
                        f"{tuple(p.shape)}: build the optimizer on the model that was saved"
                    )

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        for key in self._state_tensors:
            state[key] = zeros_for(p)
        if p.dtype in LOW_PRECISION:
            state["remainder"] = no_remainder(p)
        numbers: tuple[Any, ...] = (group["lr"], group["alpha"], group["beta"], self._factor(group))
        scale = None if has_tensors(*numbers) else kernel_scale(None, *numbers)
        state["scale"] = 1.0 if scale is None else scale

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        momenta: list[Tensor],
        scales: list[float],
    ) -> bool:
        """Collect what has a gradient; whether all of it can be stepped in its own dtype."""
        # NOTE: torch.compile runs the method of this name eagerly instead of tracing it (OptimizerVariable).
        direct = True
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if grad.layout is not torch.strided:
                raise RuntimeError(
                    f"{type(self).__name__} got a {grad.layout} gradient for a parameter of shape {tuple(p.shape)}, "
                    "and works on dense ones: build the layer with sparse=False, or call .to_dense() on its gradient"
                )
            state = self.state[p]
            if not state:
                self._init_state(group, p, state)
            dtype = p.dtype
            if dtype in LOW_PRECISION or grad.dtype is not dtype:
                direct = False
            params.append(p)
            grads.append(grad)
            momenta.append(state["momentum"])
            scales.append(state["scale"])
        return direct

    # ---- the step ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step on the gradients at hand; a parameter whose gradient is None is left as it is.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew; its value is returned.

        Raises
        ------
        ValueError
            If ``lr``, ``alpha`` or ``beta`` was set since to a number out of its range.
        RuntimeError
            If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            momenta: list[Tensor] = []
            scales: list[float] = []
            direct = self._init_group(group, params, grads, momenta, scales)
            if not params:
                continue
            if params[0].is_cuda and not group["capturable"] and capturing():
                raise RuntimeError(
                    f"a CUDA graph is being captured over step() of an {type(self).__name__} built with "
                    "capturable=False: build it with capturable=True"
                )
            self._check_numbers(group)
            batch = Batch(params, params, grads, momenta, scales[0])
            if scales.count(batch.scale) < len(scales):
                to_one_scale(momenta, scales)
            if direct:
                self._update(group, batch)
            else:
                self._update_in_float32(group, batch)
            if scales.count(batch.scale) < len(scales):
                for p in params:
                    self.state[p]["scale"] = batch.scale
        return loss

    def _update_in_float32(self, group: dict[str, Any], batch: Batch) -> None:
        """`_update` on float32 copies of float16 and bfloat16 weights."""
        batch.weights = [
            widen(p, self.state[p]["remainder"]) if p.dtype in LOW_PRECISION else p for p in batch.params
        ]
        batch.grads = [g.to(weight.dtype) for g, weight in zip(batch.grads, batch.weights, strict=True)]
        self._update(group, batch)
        for p, weight in zip(batch.params, batch.weights, strict=True):
            if weight is not p:
                narrow(weight, p, self.state[p]["remainder"])

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        """Change the weights and momenta of ``batch`` in place, and its scale."""
        raise NotImplementedError

    def _advance(
        self,
        group: dict[str, Any],
        batch: Batch,
        lr: Number,
        *,
        gradient_decay: Number = 0.0,
        shrinkage: Number = 0.0,
    ) -> None:
        """The inertial step, in the quickest of the ways that ``group`` allows and the numbers permit."""
        rule = {
            "lr": lr,
            "alpha": group["alpha"],
            "beta": group["beta"],
            "factor": self._factor(group),
            "gradient_decay": gradient_decay,
            "maximize": group["maximize"],
        }
        # Set by a GradScaler for this one step; it must not find them as attributes of the class.
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        scaled = found_inf is not None
        if not has_tensors(shrinkage, *rule.values()):
            new_scale, fuse = self._plan(group, batch, lr, scaled)
            if fuse and not (scaled and shrinkage):
                shrink(batch.weights, lr, shrinkage)
                fused_step(batch, new_scale, **rule, grad_scale=grad_scale, found_inf=found_inf)
                return
            if not scaled:
                shrink(batch.weights, lr, shrinkage)
                step = foreach_step if may_foreach(group, batch.params) else single_step
                step(batch, new_scale, **rule)
                return

        if found_inf is not None:
            if grad_scale is not None:
                batch.grads = [g / grad_scale.to(g.device) for g in batch.grads]
            rule["lr"] = lr = lr * (1 - found_inf)
        if isinstance(lr, Tensor) and (still := standing_still(lr)) is not None:
            batch.grads = [g.masked_fill(still.to(g.device), 0.0) for g in batch.grads]
        shrink(batch.weights, lr, shrinkage)
        if is_lean(batch, rule["lr"], rule["alpha"], rule["beta"], rule["factor"]):
            lean_step(batch, **rule)
        else:
            single_step(batch, batch.scale, **rule)

    def _plan(self, group: dict[str, Any], batch: Batch, lr: Any, scaled: bool) -> tuple[float, bool]:
        """The scale after a step whose hyper-parameters are numbers, and whether the kernel makes it."""
        numbers: tuple[Any, ...] = (lr, group["alpha"], group["beta"], self._factor(group))
        new_scale = kernel_scale(batch.scale, *numbers)
        if new_scale is None:
            return batch.scale, False
        fuse = may_fuse(group, batch)
        # NOTE: a replayed or compiled step repeats its numbers, and a GradScaler skips steps on the device without the
        # host's knowing, so in all three the scale must stand still.
        if new_scale != batch.scale and (scaled or group["capturable"] or torch.compiler.is_compiling()):
            fuse = fuse and scaled and not capturing() and rest(batch, *numbers)
            new_scale = batch.scale
        return new_scale, fuse


def may_fuse(group: dict[str, Any], batch: Batch) -> bool:
    fused = group.get("fused")
    if fused is False or (fused is None and group["foreach"] is not None) or torch.compiler.is_compiling():
        return False
    for p, g, b in zip(batch.weights, batch.grads, batch.momenta, strict=True):
        if type(p) not in PLAIN_TYPES or not (p.is_cpu or p.is_cuda or p.device.type in FUSED_DEVICES):
            return False
        # NOTE: the kernel walks over memory and, on the CPU, does not look at strides: with other strides it would
        # pair weights with the wrong gradients without a word.
        if not (p.is_contiguous() and g.is_contiguous() and b.is_contiguous()):
            return False
    return True


def may_foreach(group: dict[str, Any], params: list[Tensor]) -> bool:
    if group["foreach"] is not None:
        return bool(group["foreach"])
    return all(type(p) in PLAIN_TYPES for p in params)


def to_one_scale(momenta: list[Tensor], scales: list[float]) -> None:
    """Bring buffers that lag behind, having sat out steps without a gradient, to the scale of the first."""
    if capturing():
        raise RuntimeError(
            "some parameters have sat out steps: call step() once with all gradients before capturing"
        )
    for momentum, scale in zip(momenta, scales, strict=True):
        if scale != scales[0]:
            momentum.mul_(scale / scales[0])


def rest(batch: Batch, lr: float, alpha: float, beta: float, factor: float) -> bool:
    """Bring the buffers to the scale that a step leaves as it is, where there is one."""
    scale = kernel_scale(None, lr, alpha, beta, factor)
    if scale is None:
        return False
    torch._foreach_mul_(batch.momenta, batch.scale / scale)
    batch.scale = scale
    return True


def capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def zeros_for(p: Tensor) -> Tensor:
    dtype = torch.float32 if p.dtype in LOW_PRECISION else p.dtype
    return torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)


def counter(count: int | Tensor, group: dict[str, Any]) -> int | Tensor:
    """A step count as the host or, under ``capturable``, the device keeps it; counts of members stay tensors."""
    if isinstance(count, Tensor) and count.dim() > 0:
        return count.to(_device(group)).clone()
    if group["capturable"]:
        return torch.as_tensor(count, dtype=torch.float32, device=_device(group)).clone()
    return int(count)


def _placed(value: Tensor, group: dict[str, Any]) -> Number:
    """A tensor hyper-parameter that was saved elsewhere, where and as this group can use it."""
    if value.dim() == 0 and not group["capturable"]:
        return value.item()
    return value.to(_device(group))


def _device(group: dict[str, Any]) -> torch.device:
    return group["params"][0].device if group["params"] else torch.device("cpu")


def standing_still(lr: Tensor) -> Tensor | None:
    """Where the step size is zero, since there 0 · NaN must not reach the weights; None if it surely is nowhere."""
    still = lr == 0
    # A look at the values stalls an accelerator; on the CPU it is free, and masking for nothing is not.
    if still.device.type == "cpu" and not torch.compiler.is_compiling() and not still.any():
        return None
    return still
