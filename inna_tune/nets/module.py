"""A user's own module as a net: members stacked through ``torch.func``, or one by one where that cannot be."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from inna_tune.nets.factory import ModuleFactory, build, build_pair, named_tensors, refuse_strangers, seeded
from inna_tune.nets.probe import Probe, brief, probe
from inna_tune.nets.protocol import Matrix
from inna_tune.visible import get_logger

logger = get_logger(__name__)

# A call swaps the tensors of a module, and sets switches of the whole process, for a while: one thread at a time.
_CALL = threading.RLock()


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """Compute attention by formulas that ``vmap`` can batch and autograd can differentiate twice.

    The fused kernels have neither batching rules nor second derivatives, and torch would choose them.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class ModuleNet:
    """Architecture given by a function that builds a ``torch.nn.Module``; the weights live outside.

    The module is tried on a few rows at construction, so that what cannot be trained is refused before training.

    Parameters
    ----------
    factory : callable
        ``factory(in_features, out_features)`` returns a new ``torch.nn.Module`` that maps rows ``[B, in_features]``
        to outputs ``[B, out_features]``. It may draw from the global streams of torch, numpy and Python, must keep
        no state between calls and share nothing between modules. What a module remembers it keeps in buffers.
    in_features : int
        Width of the encoded table.
    out_features : int
        Number of classes, or of regression targets.

    Attributes
    ----------
    parameter_shapes : dict of str to tuple of int
        Shape of each tensor of one member, by its name in the module: trainable parameters, then frozen ones, then
        buffers. Integer and boolean buffers are kept as floats, and cast when the module is called.
    buffers : frozenset of str
        The frozen parameters and the buffers among them, which no optimizer steps.
    dropout_width : int
        0: a module draws its own dropout.
    widest : int
        Most numbers per row that any torch function called by the module's forward pass returns. Inside of a fused
        function (a recurrent layer's steps) there may be more.
    draws : bool
        Whether a forward pass draws from torch's global stream, in training or in evaluation.
    mixes_rows : bool
        Whether, in training, a row's output or a buffer depends on the other rows of the batch, as with BatchNorm.
    minimum_rows : int
        Least number of rows of a training batch: 2 if the module refuses a single row, as BatchNorm does.

    Raises
    ------
    TypeError
        If `factory` is not callable, is itself a module, or does not return one.
    ValueError
        If `factory` fails, hides a state, or changes settings of the process; if modules share memory; if the module
        has no trainable parameters, or complex, lazy or sparse ones, or writes them in its forward pass; if its
        outputs are not of shape ``[B, out_features]``, have no gradient, or in evaluation depend on other rows or on
        earlier calls.

    Notes
    -----
    Stacked members go through ``torch.func.vmap`` over ``torch.func.functional_call``. Where ``vmap`` cannot run the
    module, or the module writes its buffers in training (BatchNorm's running statistics), members are called one by
    one; one warning of the logger says so, with the reason.

    Random layers (dropout) draw from torch's global stream, all members from the same: with them a member's result
    depends on who trains beside it. The caller seeds that stream, and restores it.

    A module is made for all `in_features` columns. Where members of different widths share a table, the columns that a
    member does not have are exactly zero in its rows, and the module sees them as such.
    """

    dropout_width = 0

    def __init__(self, factory: ModuleFactory, in_features: int, out_features: int) -> None:
        self.factory, self.in_features, self.out_features = factory, in_features, out_features
        self._module, other = build_pair(factory, in_features, out_features)
        tensors = named_tensors(self._module)
        self.parameter_shapes = {name: tuple(t.shape) for name, t in tensors.items()}
        self.buffers = frozenset(name for name, t in tensors.items() if not t.requires_grad)
        self._buffer_dtypes = {
            n: tensors[n].dtype for n in self.buffers if not tensors[n].is_floating_point()
        }
        self._obstacles: dict[bool, str] = {}
        with _CALL, _differentiable_attention(), torch.enable_grad(), seeded(0):
            found = probe(self._module, other, in_features, out_features)
        self.widest, self.draws = found.widest, found.draws
        self.mixes_rows, self.minimum_rows = found.mixes_rows, found.minimum_rows
        self._writes_rows = found.writes_rows
        self._writes_buffers = {training: bool(names) for training, names in found.written.items()}
        with _CALL, _differentiable_attention(), torch.enable_grad():
            for training in (True, False):
                if obstacle := self._try_stacked(found, training):
                    self._obstacles[training] = obstacle
        if self._obstacles:
            self._tell()

    @cached_property
    def scaled(self) -> tuple[str, ...]:
        """Trained parameters of two or more axes, but for embeddings, in the order of their registration."""
        embeddings = {
            f"{name}.weight".removeprefix(".")
            for name, module in self._module.named_modules()
            if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        }
        return tuple(
            name
            for name, shape in self.parameter_shapes.items()
            if len(shape) >= 2 and name not in self.buffers | embeddings
        )

    @property
    def plain_columns(self) -> None:
        """Unknown: a module may do with its columns what it likes."""
        return

    @property
    def matrices(self) -> dict[str, Matrix]:
        """Trained parameters of two axes, but for embeddings and the last that has as many outputs as the net."""
        shapes = {name: self.parameter_shapes[name] for name in self.scaled}
        found = {name: Matrix((shape[0], shape[1]), 1) for name, shape in shapes.items() if len(shape) == 2}
        heads = [name for name, matrix in found.items() if matrix.shape[0] == self.out_features]
        return {name: matrix for name, matrix in found.items() if name not in heads[-1:]}

    # ------------------------------------------------------------------ members

    def initialize(
        self,
        generator: torch.Generator,
        *,
        used_features: tuple[int, int] | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> dict[str, Tensor]:
        """Build a module and take its tensors as one member's initial ones.

        Parameters
        ----------
        generator : torch.Generator
            The member's own stream, on the CPU: gives the seed under which the factory draws. The global streams of
            torch, numpy and Python stay as they are.
        used_features : tuple of two int, or int, optional
            Makes no difference: the module has weights for all columns, those of padding are multiplied by zeros.
        dtype : torch.dtype, default=torch.float32
            Type of all tensors, buffers of integers included. They are drawn in torch's default type and cast, so
            that a member starts at the same point in every type.

        Returns
        -------
        dict of str to Tensor
            Values of the shapes in ``parameter_shapes``.

        Raises
        ------
        ValueError
            If the module differs in shapes from that of the construction, shares memory with it, or a buffer of
            integers cannot be represented in `dtype`.
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator, device="cpu"))
        with _CALL:
            module = build(self.factory, self.in_features, self.out_features, seed)
        refuse_strangers(module, self._module)
        values = {}
        for name, tensor in named_tensors(module).items():
            values[name] = tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
            if name in self._buffer_dtypes and not torch.equal(values[name].to(tensor.dtype), tensor):
                raise ValueError(
                    f"factory: buffer {name!r} holds integers that {dtype} cannot represent; keep such constants "
                    "as plain Python attributes, or tensors that are not registered as buffers"
                )
        return values

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        x: Tensor,
        dropout_mask: Tensor | None = None,
        *,
        training: bool = False,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """Outputs of every member on its own batch.

        Parameters
        ----------
        parameters : mapping of str to Tensor
            Stacked tensors, each ``[P, *parameter_shapes[name]]``. In training, buffers are written in place, past
            autograd's version counters: buffers may share a storage with parameters that are saved for a gradient.
        x : Tensor of shape [P, B, in_features]
            Encoded rows.
        dropout_mask : Tensor, optional
            Not used.
        training : bool, default=False
            Whether the module is in training mode, and its buffers are kept.
        counts : sequence of P int, optional
            In training, how many leading rows of each member are its own, the rest being padding. Where rows mix or
            buffers are written, the module is given these alone and outputs of the others are zeros; without any, a
            member's buffers stay as they are. None means all.

        Returns
        -------
        Tensor of shape [P, B, out_features]

        Raises
        ------
        ValueError
            If a member has fewer than ``minimum_rows`` rows in training, but not none.
        """
        ragged = training and self.mixes_rows and counts is not None and min(counts) < x.shape[1]
        with _CALL, _differentiable_attention():
            if len(x) == 1 or ragged or not self.stacked[training]:
                return self._one_by_one(parameters, x, training, counts)
            try:
                return self._at_once(parameters, x, training)
            except Exception as error:
                # What is wrong with the module itself is raised again from here.
                output = self._one_by_one(parameters, x, training, counts)
                told = bool(self._obstacles)
                self._obstacles[training] = f"torch.func.vmap cannot run the module: {brief(error)}"
                if not told:
                    self._tell()
                return output

    def _at_once(self, parameters: Mapping[str, Tensor], x: Tensor, training: bool) -> Tensor:
        def single(tensors: dict[str, Tensor], rows: Tensor) -> Any:
            return functional_call(self._module, tensors, (rows,))

        self._set_mode(training)
        tensors = {name: self._as_in_module(name, t) for name, t in parameters.items()}
        output: Tensor = vmap(single, randomness="different")(tensors, self._own_rows(x))
        return output

    def _one_by_one(
        self, parameters: Mapping[str, Tensor], x: Tensor, training: bool, counts: Sequence[int] | None
    ) -> Tensor:
        self._set_mode(training)
        n_rows = x.shape[1]
        written = self.buffers if self._writes_buffers[training] else frozenset()
        # unbind, as the gradient of each indexing would be a whole stack.
        slices = {name: self._as_in_module(name, t).unbind(0) for name, t in parameters.items()}
        outputs = []
        for i, rows in enumerate(self._own_rows(x).unbind(0)):
            count = n_rows if counts is None or not training else counts[i]
            if count == 0:
                outputs.append(x.new_zeros(n_rows, self.out_features))
                continue
            if training and count < self.minimum_rows:
                raise ValueError(
                    f"a training batch of {count} row, but the module needs {self.minimum_rows} at least; "
                    "choose a batch_size that does not leave a last batch of one row"
                )
            # Cloned, so that what the module writes does not count as a change of tensors saved for the gradient.
            tensors = {n: s[i].clone() if n in written else s[i] for n, s in slices.items()}
            output = functional_call(self._module, tensors, (rows[:count],))
            if training:
                for name in written:
                    parameters[name].data[i].copy_(tensors[name].detach())
            outputs.append(torch.nn.functional.pad(output, (0, 0, 0, n_rows - count)))
        return torch.stack(outputs)

    def _own_rows(self, x: Tensor) -> Tensor:
        """Rows that the module may write into: `x` may be a view of the table."""
        return x.clone() if self._writes_rows else x

    def _as_in_module(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor in the type that the module gave it; buffers without gradient."""
        if name not in self.buffers:
            return tensor
        dtype = self._buffer_dtypes.get(name)
        return tensor.detach() if dtype is None else tensor.detach().to(dtype)

    def _set_mode(self, training: bool) -> None:
        if self._module.training != training:
            self._module.train(training)

    # ------------------------------------------------------------------ falling back

    @property
    def stacked(self) -> dict[bool, bool]:
        """Whether members are computed at once, by ``training``."""
        return {training: training not in self._obstacles for training in (False, True)}

    def _try_stacked(self, found: Probe, training: bool) -> str | None:
        """What keeps the members from being stacked, gradients included; None if nothing does."""
        if names := sorted(found.written[training]):
            return f"the module writes its buffers in place ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        parameters = {n: t.clone().requires_grad_(n not in self.buffers) for n, t in found.parameters.items()}
        trained = [t for n, t in parameters.items() if n not in self.buffers]
        with seeded(0):
            alone = self._one_by_one(parameters, found.x, training, None)
            try:
                output = self._at_once(parameters, found.x, training)
                torch.autograd.grad(output.sum(), trained, allow_unused=True)
            except Exception as error:
                return f"torch.func.vmap cannot run the module: {brief(error)}"
        if not found.draws and not torch.allclose(output, alone, rtol=1e-3, atol=1e-4, equal_nan=True):
            return "torch.func.vmap gives other outputs than the module called for each"
        return None

    def _tell(self) -> None:
        (training, reason), *others = self._obstacles.items()
        mode = "" if others else " in training" if training else " in evaluation"
        name = getattr(self.factory, "__qualname__", repr(self.factory))
        logger.warning(
            "Members built by %s are computed one by one%s, which is slower than stacked: %s.",
            name,
            mode,
            reason,
        )

    # ------------------------------------------------------------------ as an object

    def __repr__(self) -> str:
        return f"ModuleNet(factory={self.factory!r}, in_features={self.in_features}, out_features={self.out_features})"

    def __getstate__(self) -> dict[str, Any]:
        # The factory can be pickled more often than what it builds, and builds the same again.
        return {name: value for name, value in vars(self).items() if name != "_module"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        with _CALL:
            self._module = build(self.factory, self.in_features, self.out_features, 0)
