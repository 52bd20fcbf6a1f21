"""What a user's module does with a few rows, found out before training."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from inna_tune.nets.factory import named_tensors, seeded

_ROWS = 4


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes
    ----------
    parameters : dict of str to Tensor
        Tensors of two modules, stacked and made float32, each [2, *shape].
    x : Tensor of shape [2, 4, in_features]
        Rows they were tried on.
    written : dict of bool to set of str
        Buffers that a forward pass writes, by ``training``.
    widest : int
        Most numbers per row that a torch function returned.
    draws, mixes_rows, minimum_rows
        As in ``ModuleNet``.
    writes_rows : bool
        Whether the module writes into its input.
    """

    parameters: dict[str, Tensor]
    x: Tensor
    written: dict[bool, set[str]]
    widest: int
    draws: bool
    mixes_rows: bool
    minimum_rows: int
    writes_rows: bool


def brief(error: Exception) -> str:
    """Kind and first sentence of an error."""
    sentence = str(error).split("\n")[0].split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {sentence[:200]}"


def probe(module: nn.Module, other: nn.Module, in_features: int, out_features: int) -> Probe:
    """Try a module on a few rows, in training and in evaluation.

    Parameters
    ----------
    module, other : nn.Module
        Built by one factory under two seeds. `module` is called, with the tensors of both.
    in_features, out_features : int
        Widths of rows and outputs.

    Raises
    ------
    ValueError
        If the module cannot be a net: see ``ModuleNet``.

    Notes
    -----
    Draws from the global stream of torch, which is the caller's business.
    """
    # In [0, 1): numbers whose logarithms exist, and which as integer codes are all zero, in range for any embedding.
    x = torch.rand(2, _ROWS, in_features, device="cpu")
    with seeded(0):
        call = _Call(module, in_features, out_features)
        minimum_rows = call.check_outputs(x[0])
        written, writes_rows, draws = {}, False, False
        for training in (False, True):
            state = torch.get_rng_state()
            written[training], wrote_rows = call.writes(x[0], training)
            draws |= not torch.equal(state, torch.get_rng_state())
            writes_rows |= wrote_rows
        call.check_gradient(x[0])
        call.check_memory(x[0])
        if call.mixes_rows(x, training=False):
            raise ValueError(
                "factory: in evaluation the module's output for a row depends on the rows beside it, so that predictions "
                "would depend on how rows are batched; normalize by running statistics or within the row"
            )
        mixes_rows = call.mixes_rows(x, training=True) or bool(written[True])
        call.check_other(other, x[1])
        widest = max(call.widest(x[0]), in_features, out_features, 1)
    stack = {n: torch.stack([t.detach().float(), call.of(other)[n].float()]) for n, t in call.tensors.items()}
    return Probe(stack, x, written, widest, draws, mixes_rows, minimum_rows, writes_rows)


class _Call:
    """Calls of one module with copies of its tensors, in float32."""

    def __init__(self, module: nn.Module, in_features: int, out_features: int) -> None:
        self.module, self.in_features, self.out_features = module, in_features, out_features
        self.trained = [name for name, p in module.named_parameters() if p.requires_grad]
        self.tensors = self.of(module)

    @staticmethod
    def of(module: nn.Module) -> dict[str, Tensor]:
        """Tensors of a module, in float32 if they are floats."""
        return {
            n: t.detach().float() if t.is_floating_point() else t.detach()
            for n, t in named_tensors(module).items()
        }

    def __call__(
        self, rows: Tensor, training: bool, tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[Any, dict[str, Tensor]]:
        """The output, and the tensors as they are after the call."""
        given = {n: t.clone() for n, t in (tensors or self.tensors).items()}
        for name in self.trained:
            given[name].requires_grad_()
        self.module.train(training)
        # Where the module puts another tensor in the place of a buffer, it is in `given` afterwards.
        return functional_call(self.module, given, (rows,)), given

    def check_outputs(self, rows: Tensor) -> int:
        """Raise a ValueError for a wrong output; else the least number of rows in training."""
        minimum = 1
        for training in (False, True):
            for count in (2, 1):
                shape = (count, self.in_features)
                mode = "train()" if training else "eval()"
                try:
                    output, _ = self(rows[:count].clone(), training)
                except Exception as error:
                    if training and count == 1:
                        minimum = 2
                        continue
                    raise ValueError(
                        f"factory: in {mode} mode the module fails on rows of shape {shape} with "
                        f"{type(error).__name__}: {error}"
                    ) from error
                self._check_output(output, shape, mode)
        return minimum

    def _check_output(self, output: Any, shape: tuple[int, int], mode: str) -> None:
        wanted = (shape[0], self.out_features)
        if not isinstance(output, Tensor):
            raise ValueError(
                f"factory: the module returns {type(output).__name__}, not a tensor of shape {wanted} for rows of shape "
                f"{shape}; return the outputs alone"
            )
        found = tuple(output.shape)
        if found == wanted and output.is_floating_point():
            return
        if found != wanted and output.numel() == wanted[0] * wanted[1]:
            remedy = f"return output.reshape(-1, {self.out_features})"
        elif found != wanted:
            remedy = f"end it with a layer of out_features={self.out_features} outputs"
        else:
            remedy = "return floats: class scores, not classes"
        raise ValueError(
            f"factory: in {mode} mode the module returns shape {found} of {output.dtype} for rows of shape {shape}, but "
            f"[rows, out_features] is {wanted}; {remedy}"
        )

    def writes(self, rows: Tensor, training: bool) -> tuple[set[str], bool]:
        """Buffers that a call writes, and whether it writes its rows; a ValueError if it writes what is trained."""
        given = rows.clone()
        _, after = self(given, training)
        # The version tells of a write of equal values; some kernels, BatchNorm's, write without counting.
        written = {
            n for n, t in after.items() if t._version or not _same(t.detach(), self.tensors[n], exact=True)
        }
        if wrong := sorted(written.intersection(self.trained)):
            raise ValueError(
                f"factory: the module's forward pass writes its parameter {wrong[0]!r}, as nn.Embedding(max_norm=…) does; "
                "only the optimizer may, a forward pass may write buffers"
            )
        return written, bool(given._version) or not torch.equal(given, rows)

    def check_gradient(self, rows: Tensor) -> None:
        """Raise a ValueError where the optimizer would get no gradient, or a sparse one."""
        output, given = self(rows.clone(), True)
        if not output.requires_grad:
            raise ValueError(
                "factory: the module's output has no gradient; its forward pass must not detach, use no_grad or numpy"
            )
        gradients = torch.autograd.grad(output.sum(), [given[n] for n in self.trained], allow_unused=True)
        for name, gradient in zip(self.trained, gradients, strict=True):
            if gradient is not None and gradient.layout != torch.strided:
                raise ValueError(
                    f"factory: the gradient of {name!r} is sparse, which members cannot stack; pass sparse=False"
                )

    def check_memory(self, rows: Tensor) -> None:
        """Raise a ValueError where the same tensors and rows give another output the second time."""
        outputs = []
        for _ in range(2):
            with seeded(0), torch.no_grad():
                outputs.append(self(rows.clone(), False)[0])
        if not _same(*outputs):
            raise ValueError(
                "factory: in evaluation the module gives other outputs when called again, so it keeps a state that all "
                "members would share; keep it in buffers, with register_buffer, and draw from torch's global stream"
            )

    def mixes_rows(self, x: Tensor, *, training: bool) -> bool:
        """Whether the first row's output changes with the other rows."""
        outputs = []
        for others in x:
            with seeded(0):
                outputs.append(self(torch.cat([x[0, :1], others[1:]]), training)[0][0])
        return not _same(*outputs)

    def check_other(self, other: nn.Module, rows: Tensor) -> None:
        """Raise a ValueError where another module's tensors do not make this module the other."""
        with seeded(0), torch.no_grad():
            here, _ = self(rows.clone(), False, self.of(other))
        with seeded(0), torch.no_grad():
            there = other.float().eval()(rows.clone())
        if not _same(here, there):
            raise ValueError(
                "factory: two modules differ by more than their parameters and buffers, which are all that a member "
                "keeps; register what is drawn at random with register_buffer"
            )

    def widest(self, rows: Tensor) -> int:
        """Most numbers per row that a torch function returns in evaluation."""
        sizes: list[list[int]] = []
        for count in (2, 4):
            with torch.no_grad(), _Sizes() as mode:
                self(rows[:count].clone(), False)
            sizes.append(mode.sizes)
        few, many = sizes[0], sizes[1]
        if len(few) == len(many):
            # What grows with the rows, as weights and their transposes do not.
            return max((b - a + 1) // 2 for a, b in zip(few, many, strict=True))
        return max(many) // 4


class _Sizes(TorchFunctionMode):
    """Numbers in each tensor that torch functions return."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.sizes += [t.numel() for t in _tensors(result)]
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _same(a: Tensor, b: Tensor, *, exact: bool = False) -> bool:
    tolerance = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 1e-4, "atol": 1e-6}
    return a.shape == b.shape and torch.allclose(a, b, **tolerance, equal_nan=True)
