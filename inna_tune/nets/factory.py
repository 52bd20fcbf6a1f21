"""Modules from a user's factory: built from a seed of their own, and refused where they could not be members."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

ModuleFactory = Callable[[int, int], nn.Module]

# What a factory might set for the whole process: its name, how to read it, how to set it back.
_PROCESS_SETTINGS: tuple[tuple[str, Callable[[], Any], Callable[[Any], Any]], ...] = (
    ("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    ("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    (
        "torch's deterministic mode",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global streams of torch (CPU), numpy and Python within the block, and put them back after it.

    Parameters
    ----------
    seed : int
        Not negative.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    # Modules are built on the CPU; asking CUDA for its state would start CUDA where nobody needs it.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def seeded_from(stream: torch.Generator) -> AbstractContextManager[None]:
    """`seeded` by the next number of a stream."""
    return seeded(int(torch.randint(2**62, (), generator=stream, device="cpu")))


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module by name: trainable parameters first, then frozen parameters, then buffers.

    Parameters
    ----------
    module : nn.Module
        Tensors known under several names (tied weights) appear once, under the first.
    """
    parameters = dict(module.named_parameters())
    trainable = {name: p for name, p in parameters.items() if p.requires_grad}
    return trainable | parameters | dict(module.named_buffers())


def build(factory: ModuleFactory, in_features: int, out_features: int, seed: int) -> nn.Module:
    """Call a factory with all randomness from one seed.

    Parameters
    ----------
    factory : callable
        ``factory(in_features, out_features)`` returns a new ``nn.Module``.
    in_features, out_features : int
        Widths of rows and outputs.
    seed : int
        Seeds the global streams for the time of the call; afterwards they are as they were.

    Returns
    -------
    nn.Module
        In evaluation mode.

    Raises
    ------
    TypeError
        If the factory does not return a module.
    ValueError
        If the factory fails, changes settings of the whole process, or the module's tensors cannot be a member's.
    """
    call = f"factory({in_features}, {out_features})"
    before = [read() for _, read, _ in _PROCESS_SETTINGS]
    with seeded(seed), torch.device("cpu"):
        try:
            module = factory(in_features, out_features)
        except Exception as error:
            raise ValueError(
                f"{call} failed with {type(error).__name__}: {error}; "
                "factory must build a torch.nn.Module from in_features and out_features"
            ) from error
        finally:
            changed = []
            for (setting, read, restore), value in zip(_PROCESS_SETTINGS, before, strict=True):
                if read() != value:
                    restore(value)
                    changed.append(setting)
        if torch.initial_seed() != seed:
            changed.append("torch's global seed, so that all members would start at the same weights")
    if changed:
        raise ValueError(
            f"factory changes {' and '.join(changed)}; a factory must only build a module: do this elsewhere"
        )
    # mypy takes the annotation's word for it; the user's factory need not keep it.
    if not isinstance(module, nn.Module):
        raise TypeError(f"{call} returned {type(module).__name__}; factory must return a torch.nn.Module")
    _refuse_unusable_tensors(module)
    return module.eval()


def _refuse_unusable_tensors(module: nn.Module) -> None:
    """Raise a ValueError where a tensor cannot be stacked as real numbers, or none can be trained."""
    tensors = named_tensors(module)
    for name, tensor in tensors.items():
        if is_lazy(tensor):
            raise ValueError(
                f"factory: {name!r} is not initialized, as in torch's lazy modules; use in_features for its size"
            )
        if tensor.is_complex():
            raise ValueError(
                f"factory: {name!r} is {tensor.dtype}, but members are real vectors; "
                "keep real and imaginary part in a last axis of two, and use torch.view_as_complex"
            )
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise ValueError(
                f"factory: {name!r} is {tensor.layout} on {tensor.device}; build the module of dense tensors on the "
                "CPU, training moves them to its own device"
            )
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError("factory: the module has no parameter that requires a gradient, nothing to train")
    if pair := _overlapping(tensors.items()):
        raise ValueError(
            f"factory: {pair[0]!r} and {pair[1]!r} are different tensors in the same memory; "
            "tie weights by assigning the same nn.Parameter twice"
        )


def _overlapping(tensors: Iterable[tuple[str, Tensor]]) -> tuple[str, str] | None:
    """Labels of two tensors that share memory, None if there are none."""
    spans = []
    for label, tensor in tensors:
        if tensor.numel():
            last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
            begin = tensor.data_ptr()
            spans.append((begin, begin + (last + 1) * tensor.element_size(), label))
    furthest, owner = 0, ""
    for begin, end, label in sorted(spans):
        if begin < furthest:
            return owner, label
        furthest, owner = end, label
    return None


def refuse_strangers(module: nn.Module, template: nn.Module) -> None:
    """Check that two modules of one factory have the same tensors and share none.

    Parameters
    ----------
    module, template : nn.Module
        Built by two calls.

    Raises
    ------
    ValueError
        If they are one object, share memory, or differ in names, shapes or types of their tensors.
    """
    if module is template:
        raise ValueError("factory returned the same module twice; it must build a new module at every call")
    ours, theirs = named_tensors(module), named_tensors(template)
    labelled = [(n, t) for tensors in (ours, theirs) for n, t in tensors.items()]
    if pair := _overlapping(labelled):
        names = " and ".join(repr(name) for name in dict.fromkeys(pair))
        raise ValueError(
            f"factory: modules of two calls share the memory of {names}, so that training one member would change "
            "another; build every layer and tensor inside the factory"
        )
    kinds = [
        {n: (tuple(t.shape), t.dtype, t.requires_grad) for n, t in tensors.items()}
        for tensors in (ours, theirs)
    ]
    if kinds[0] != kinds[1]:
        differing = sorted(n for n in kinds[0].keys() | kinds[1].keys() if kinds[0].get(n) != kinds[1].get(n))
        raise ValueError(
            f"factory: two calls gave modules that differ in the shape or type of {', '.join(map(repr, differing))}; "
            "it must not depend on anything that changes between calls"
        )


def build_pair(factory: ModuleFactory, in_features: int, out_features: int) -> tuple[nn.Module, nn.Module]:
    """Two modules under two seeds, after calls that show whether the factory hides a state.

    Parameters
    ----------
    factory, in_features, out_features
        As for ``build``.

    Raises
    ------
    TypeError
        If the factory is no function, or returns no module.
    ValueError
        As ``build`` and ``refuse_strangers``, and if two calls under one seed give different values.
    """
    if isinstance(factory, nn.Module):
        raise TypeError(
            f"factory is a module, {type(factory).__name__}, but every member needs its own; pass a function of "
            "(in_features, out_features) that builds one"
        )
    if not callable(factory):
        raise TypeError(f"factory={factory!r} is not callable; pass a function that builds a torch.nn.Module")
    first, again, other = (build(factory, in_features, out_features, seed) for seed in (0, 0, 1))
    refuse_strangers(again, first)
    refuse_strangers(other, first)
    refuse_strangers(other, again)
    repeated = named_tensors(again)
    for name, tensor in named_tensors(first).items():
        if not torch.allclose(tensor, repeated[name], rtol=0, atol=0, equal_nan=True):
            raise ValueError(
                f"factory: two calls under the same seed gave different values of {name!r}; it must draw from the "
                "global streams of torch, numpy or Python only, and keep no state between calls"
            )
    return first, other
