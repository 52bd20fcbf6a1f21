"""What INNA and INNAprop share: hyper-parameters, state, its saving and loading, and the choice of how to step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from inna_tune.optim._low_precision import LOW_PRECISION, narrow, no_remainder, widen
from inna_tune.optim._step import Batch, Number, foreach_step, fused_step, kernel_scale, multiply, single_step

_PLAIN_TYPES = (Tensor, torch.nn.Parameter)
_FUSED_DEVICES = frozenset(_get_fused_kernels_supported_devices())
# How an optimizer steps is a property of the machine it runs on, not of the run that is resumed.
_EXECUTION_OPTIONS = ("foreach", "fused", "capturable")


class Bound(NamedTuple):
    """The least value of a hyper-parameter, and whether it is itself allowed."""

    low: float
    open: bool = False

    def __str__(self) -> str:
        return f"{'>' if self.open else '>='} {self.low:g}"


class InertialNewton(Optimizer):
    """Base of INNA and INNAprop; subclasses say how gradients and weights are prepared before the inertial step."""

    _bounds: ClassVar[dict[str, Bound]] = {
        "lr": Bound(0.0),
        "alpha": Bound(0.0),
        "beta": Bound(0.0, open=True),
        "weight_decay": Bound(0.0),
    }
    _state_tensors: ClassVar[tuple[str, ...]] = ("momentum",)

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
        name = type(self).__name__
        for p in group["params"]:
            if not p.is_floating_point():
                kind = "complex" if p.is_complex() else "integer"
                raise ValueError(
                    f"{name} works on real parameters, got a {kind} one of dtype {p.dtype} and shape "
                    f"{tuple(p.shape)}: optimize torch.view_as_real(parameter) instead, or leave it out"
                )
        if group["foreach"] and group.get("fused"):
            raise ValueError("foreach=True and fused=True exclude each other: set one of them, or neither")
        if group.get("fused"):
            check_fused(group["params"])
        for key, bound in self._bounds.items():
            if isinstance(group[key], Tensor):
                check_tensor(key, group[key], bound, group)
        self._check_numbers(group)

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
        self._check_state_dict(state_dict)
        options = [{key: group.get(key) for key in _EXECUTION_OPTIONS} for group in self.param_groups]
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        super().load_state_dict(state_dict)
        for group, option in zip(self.param_groups, options, strict=True):
            group.update({key: value for key, value in option.items() if key in group})
            if "step" in group:
                group["step"] = counter(group["step"], group)
        for (group, p), i in zip(self._parameters(), saved_ids, strict=True):
            saved = state_dict["state"].get(i, {})
            # NOTE: Optimizer.load_state_dict has cast every tensor to the parameter's dtype, which would round the
            # float32 velocity of a bfloat16 weight; and it keeps the saved strides, which the kernel cannot read.
            for key in self._state_tensors:
                if key in saved:
                    self.state[p][key] = zeros_for(p).copy_(saved[key])
            if p.dtype in LOW_PRECISION and "remainder" in saved:
                self.state[p]["remainder"] = no_remainder(p).copy_(saved["remainder"])
            if "updates" in saved:
                self.state[p]["updates"] = counter(saved["updates"], group)

    def _parameters(self) -> list[tuple[dict[str, Any], Tensor]]:
        return [(group, p) for group in self.param_groups for p in group["params"]]

    def _check_state_dict(self, state_dict: dict[str, Any]) -> None:
        name = type(self).__name__
        own_state = {*self._state_tensors, "scale", "remainder", "updates"}
        missing = sorted(
            {key for group in state_dict["param_groups"] for key in self.defaults if key not in group}
        )
        strange = sorted(
            {key for state in state_dict["state"].values() for key in state if key not in own_state}
        )
        if missing or strange:
            found = [f"its parameter groups lack {missing}"] * bool(missing)
            found += [f"its state holds {strange}"] * bool(strange)
            raise ValueError(
                f"state_dict is not that of {name}: {' and '.join(found)}. Load it into the optimizer that wrote it, "
                f"or start {name} without it"
            )
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        # Optimizer.load_state_dict tells of differing numbers of groups or parameters.
        for i, (_, p) in zip(saved_ids, self._parameters(), strict=False):
            for key, value in state_dict["state"].get(i, {}).items():
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
        numbers = (group["lr"], group["alpha"], group["beta"])
        tensors = any(isinstance(number, Tensor) for number in numbers)
        scale = None if tensors else kernel_scale(None, *numbers)
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
            widen(p, self._remainder(p)) if p.dtype in LOW_PRECISION else p for p in batch.params
        ]
        batch.grads = [g.to(weight.dtype) for g, weight in zip(batch.grads, batch.weights, strict=True)]
        self._update(group, batch)
        for p, weight in zip(batch.params, batch.weights, strict=True):
            if weight is not p:
                narrow(weight, p, self._remainder(p))

    def _remainder(self, p: Tensor) -> Tensor:
        # A state saved by a float32 twin has none.
        remainder: Tensor = self.state[p].setdefault("remainder", no_remainder(p))
        return remainder

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
        alpha, beta, maximize = group["alpha"], group["beta"], group["maximize"]
        # Set by a GradScaler for this one step; it must not find them as attributes of the class.
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        scaled = found_inf is not None
        if not (
            isinstance(lr, Tensor)
            or isinstance(alpha, Tensor)
            or isinstance(beta, Tensor)
            or isinstance(gradient_decay, Tensor)
            or isinstance(shrinkage, Tensor)
        ):
            rule = {
                "lr": lr,
                "alpha": alpha,
                "beta": beta,
                "gradient_decay": gradient_decay,
                "maximize": maximize,
            }
            new_scale = kernel_scale(batch.scale, lr, alpha, beta)
            fuse = new_scale is not None and may_fuse(group, batch) and not (scaled and shrinkage)
            if new_scale is None:
                new_scale = batch.scale
            # NOTE: a replayed or compiled step repeats its numbers, and a GradScaler skips steps on the device without
            # the host's knowing, so in all three the scale must stand still.
            if new_scale != batch.scale and (scaled or group["capturable"] or torch.compiler.is_compiling()):
                fuse = fuse and scaled and not capturing() and rest(batch, lr, alpha, beta)
                new_scale = batch.scale
            if fuse or not scaled:
                if shrinkage:
                    torch._foreach_mul_(batch.weights, 1.0 - lr * shrinkage)
                if fuse:
                    fused_step(batch, new_scale, **rule, grad_scale=grad_scale, found_inf=found_inf)
                elif may_foreach(group, batch.params):
                    foreach_step(batch, new_scale, **rule)
                else:
                    single_step(batch, new_scale, **rule)
                return

        if found_inf is not None:
            if grad_scale is not None:
                batch.grads = [g / grad_scale.to(g.device) for g in batch.grads]
            lr = lr * (1 - found_inf)
        if isinstance(lr, Tensor) and (still := standing_still(lr)) is not None:
            batch.grads = [torch.where(still.to(g.device), 0.0, g) for g in batch.grads]
        if isinstance(shrinkage, Tensor) or shrinkage:
            for weight in batch.weights:
                multiply(weight, 1.0 - lr * shrinkage)
        single_step(
            batch,
            batch.scale,
            lr=lr,
            alpha=alpha,
            beta=beta,
            gradient_decay=gradient_decay,
            maximize=maximize,
        )


# ---- checks ---------------------------------------------------------------------------------------------------


def check_number(key: str, value: Any, bound: Bound) -> float:
    try:
        if bound.low < value < math.inf or (value == bound.low and not bound.open):
            return float(value)
    except TypeError:
        pass
    raise ValueError(f"{key} must be a finite number {bound}, got {value!r}")


def check_tensor(key: str, value: Tensor, bound: Bound, group: dict[str, Any]) -> None:
    shape = tuple(value.shape)
    if not value.is_floating_point():
        raise ValueError(
            f"{key} must be a real floating-point tensor, got dtype {value.dtype}: use {key}.float()"
        )
    outside = ~(value.isfinite() & ((value > bound.low) if bound.open else (value >= bound.low)))
    if outside.any():
        raise ValueError(
            f"{key} must be finite and {bound} everywhere, got {value[outside].flatten()[0].item()}"
        )
    if value.dim() == 0 and not group["capturable"]:
        raise ValueError(
            f"{key} is a tensor without dimensions ({value.item()}) and capturable=False: give a float, or set "
            "capturable=True to step in a CUDA graph. A tensor with dimensions holds one value a population member"
        )
    for p in group["params"]:
        try:
            fits = torch.broadcast_shapes(shape, p.shape) == p.shape  # type: ignore[no-untyped-call]
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"{key} of shape {shape} does not broadcast against a parameter of shape {tuple(p.shape)}: give it "
                "the parameter's number of dimensions, of size 1 where its members share a value, as [P, 1, 1] does "
                "for [P, in, out]"
            )
        if value.dim() > 0 and value.device != p.device:
            raise ValueError(f"{key} is on {value.device} and a parameter on {p.device}: move {key} there")


def check_fused(params: list[Tensor]) -> None:
    for p in params:
        if p.device.type not in _FUSED_DEVICES or type(p) not in _PLAIN_TYPES:
            raise ValueError(
                f"fused=True works on ordinary tensors on {sorted(_FUSED_DEVICES)}, got a {type(p).__name__} on "
                f"{p.device}: leave fused=None"
            )


# ---- small things ---------------------------------------------------------------------------------------------


def may_fuse(group: dict[str, Any], batch: Batch) -> bool:
    fused = group.get("fused")
    if fused is False or (fused is None and group["foreach"] is not None) or torch.compiler.is_compiling():
        return False
    for p, g, b in zip(batch.weights, batch.grads, batch.momenta, strict=True):
        if type(p) not in _PLAIN_TYPES or not (p.is_cpu or p.is_cuda or p.device.type in _FUSED_DEVICES):
            return False
        # NOTE: the kernel walks over memory and, on the CPU, does not look at strides: with other strides it would
        # pair weights with the wrong gradients without a word.
        if not (p.is_contiguous() and g.is_contiguous() and b.is_contiguous()):
            return False
    return True


def may_foreach(group: dict[str, Any], params: list[Tensor]) -> bool:
    if group["foreach"] is not None:
        return bool(group["foreach"])
    return all(type(p) in _PLAIN_TYPES for p in params)


def to_one_scale(momenta: list[Tensor], scales: list[float]) -> None:
    """Bring buffers that lag behind, having sat out steps without a gradient, to the scale of the first."""
    if capturing():
        raise RuntimeError(
            "some parameters have sat out steps: call step() once with all gradients before capturing"
        )
    for momentum, scale in zip(momenta, scales, strict=True):
        if scale != scales[0]:
            momentum.mul_(scale / scales[0])


def rest(batch: Batch, lr: float, alpha: float, beta: float) -> bool:
    """Bring the buffers to the scale that a step leaves as it is, where there is one."""
    scale = kernel_scale(None, lr, alpha, beta)
    if scale is None:
        return False
    torch._foreach_mul_(batch.momenta, batch.scale / scale)
    batch.scale = scale
    return True


def capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_streamcapturing()


def zeros_for(p: Tensor) -> Tensor:
    dtype = torch.float32 if p.dtype in LOW_PRECISION else p.dtype
    return torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)


def counter(count: int | Tensor, group: dict[str, Any]) -> int | Tensor:
    """A step count as the host or, under ``capturable``, the device keeps it."""
    if group["capturable"]:
        return torch.as_tensor(count, dtype=torch.float32, device=group["params"][0].device).clone()
    return int(count)


def standing_still(lr: Tensor) -> Tensor | None:
    """Where the step size is zero, since there 0 · NaN must not reach the weights; None if it surely is nowhere."""
    still = lr == 0
    # A look at the values stalls an accelerator; on the CPU it is free, and masking for nothing is not.
    if still.device.type == "cpu" and not torch.compiler.is_compiling() and not still.any():
        return None
    return still
