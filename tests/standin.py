"""A device that is none: its tensors lie on the CPU, and everything else is as on an accelerator.

They are computed with, so that what was trained can be compared; but an operation that mixes them with tensors of the CPU is
refused, every wait of the host for the device is seen, and so is every kernel that would be launched. A process that has
begun the device differs from others: torch has an accelerator in it. So tests run what needs it in one of its own.
"""

import functools
from collections import Counter
from contextlib import contextmanager

import torch
from torch.utils import _pytree as pytree

NAME = "standin"

# Launch nothing: other views of the same memory, and memory that is only asked for.
_FREE = {
    *("alias", "as_strided", "detach", "expand", "lift_fresh", "permute", "select", "slice", "split", "squeeze", "t"),
    *("split_with_sizes", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view", "_reshape_alias", "diagonal"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_to_copy_alias", "unfold"),
}  # fmt: skip

# What the host must know before it can go on: a value, or how large the result is.
_WAITS = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "bincount"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "_linalg_eigh", "linalg_eig"),
}  # fmt: skip


class HostReadError(AssertionError):
    """The host waited for the device where it must not."""


class MixedDevicesError(AssertionError):
    """An operation met tensors of the device and of the CPU."""


class Log:
    """What was asked of the device.

    Attributes
    ----------
    kernels : Counter
        Launches by name of the operation.
    reads, uploads : list of str
        Operations for which the host waited, and those that brought it something.
    may_read : bool
        Whether the host may wait; where not, it raises.
    """

    def __init__(self):
        self.kernels, self.reads, self.uploads, self.may_read = Counter(), [], [], True

    def note_read(self, name):
        self.reads.append(name)
        if not self.may_read:
            raise HostReadError(f"{name} makes the host wait for the device")


_logs = [Log()]


@contextmanager
def watched(*, may_read=True):
    """A log of what is done within; those outside hear of nothing."""
    log = Log()
    log.may_read = may_read
    _logs.append(log)
    try:
        yield log
    finally:
        _logs.remove(log)


@contextmanager
def no_reads():
    """Within, a wait of the host raises."""
    log = _logs[-1]
    before, log.may_read = log.may_read, False
    try:
        yield
    finally:
        log.may_read = before


class OnDevice(torch.Tensor):
    """A tensor of the device; ``host`` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=torch.device(NAME, 0),
        )
        made.host = host
        return made

    # What asks for it wants to know whether there is a device that must not be waited for.
    is_cuda = True

    def tolist(self):
        # torch has it for its own class alone.
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


@functools.cache
def _facts(func):
    """Of an operation: its name, names of its arguments, those it writes to, and how many results it has."""
    schema = func._schema
    written = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    name = schema.name.removeprefix("aten::").rstrip("_")
    return name, [a.name for a in schema.arguments], written, len(schema.returns)


def _unpacked(value, found):
    """What lies on the CPU behind an argument; tensors that are met are added to ``found``."""
    if isinstance(value, OnDevice):
        found.append(value)
        return value.host
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, (list, tuple)):
        return [_unpacked(each, found) for each in value]
    return value


def _packed(value):
    if isinstance(value, torch.Tensor):
        return OnDevice(value)
    return type(value)(_packed(each) for each in value) if isinstance(value, (list, tuple)) else value


def _dispatch(func, args, kwargs):
    log = _logs[-1]
    name, names, written, n_results = _facts(func)
    tensors = []
    host_args = _unpacked(args, tensors)
    host_kwargs = {key: _unpacked(value, tensors) for key, value in kwargs.items()}
    target = kwargs.get("device")
    to_host = target is not None and torch.device(target).type == "cpu"
    if target is not None:
        host_kwargs["device"] = torch.device("cpu")
    strangers = [t for t in tensors if not isinstance(t, OnDevice)]
    if name == "copy" and len(args) > 1:
        to_host = not isinstance(args[0], OnDevice)
        if strangers and not to_host:
            log.uploads.append(name)
    # A number in a tensor is given to the kernel as its argument, as torch does on every device.
    elif any(t.dim() > 0 for t in strangers):
        raise MixedDevicesError(f"{func} of {[(t.device.type, tuple(t.shape)) for t in tensors]}")
    by_mask = name.startswith("index") and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:2])
    unsized = name == "repeat_interleave" and kwargs.get("output_size") is None
    if name in _WAITS or to_host or by_mask or unsized:
        log.note_read(str(func))
    if name not in _FREE:
        log.kernels[name] += _launches(name, args)
    found = func(*host_args, **host_kwargs)
    if _graphs:
        _graphs[-1].note(func, host_args, host_kwargs, found, launches=name not in _FREE)
    if to_host or name in ("_local_scalar_dense", "item", "is_nonzero", "equal"):
        return args[0] if name == "copy" else found
    if written:
        # What was written to is what was given.
        given = dict(zip(names, args, strict=False)) | kwargs
        own = [given[each] for each in written if each in given]
        return None if n_results == 0 else own[0] if n_results == 1 else tuple(own)
    return _packed(found)


def _launches(name, args):
    """One; but one a tensor where a list of tensors does not go through torch's kernel for lists."""
    if not name.startswith("_foreach"):
        return 1
    lists = [each for each in args if isinstance(each, (list, tuple)) and isinstance(each[0], torch.Tensor)]
    alike = all(
        t.stride() == row[0].stride() and t.dtype == row[0].dtype and t.shape == row[0].shape
        for row in zip(*lists, strict=True)
        for t in row
    )
    return 1 if alike else len(lists[0])


def _empty(size, *_, dtype=None, memory_format=None, **__):
    return OnDevice(torch.empty(size, dtype=dtype, memory_format=memory_format))


def _empty_strided(size, stride, dtype=None, **__):
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source, target, non_blocking=False):
    # Here arrive only tensors that torch brings by itself, those of `torch.tensor`.
    _logs[-1].uploads.append("tensor")
    source = source.host if isinstance(source, OnDevice) else source
    target.host.copy_(source)
    return target


class Graph:
    """As a CUDA graph: what was done while it was captured is done again, in the same memory, by `replay`."""

    def __init__(self):
        self._done, self.replays = [], 0

    def note(self, func, args, kwargs, found, *, launches):
        if launches:
            self._done.append((func, args, kwargs, found))

    def replay(self):
        self.replays += 1
        for func, args, kwargs, found in self._done:
            again = func(*args, **kwargs)
            for old, new in zip(pytree.tree_leaves(found), pytree.tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old is not new and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


_graphs = []


@contextmanager
def capture(graph):
    """What ``torch.cuda.graph`` is to CUDA; a wait for the device cannot be captured, nor what the host brings."""
    _graphs.append(graph)
    try:
        with watched(may_read=False) as log:
            yield
    finally:
        _graphs.remove(graph)
    assert not log.uploads, f"captured what comes from the host: {log.uploads}"


def _kernel(func, *args, **kwargs):
    return _dispatch(func, args, kwargs)


@functools.cache
def begin():
    """Make the device known to torch, for the rest of this process; the device."""
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

    class Module(_DummyBackendModule):
        def get_amp_supported_dtype(self):
            return [torch.bfloat16]

    _setup_privateuseone_for_python_backend(NAME, Module())
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    # Kernels that CUDA has, too; torch would compose them of others.
    for name in ("mish_backward", "silu_backward"):
        library.impl(name, functools.partial(_kernel, getattr(torch.ops.aten, name).default), "PrivateUse1")
    begin.library = library  # it unregisters when it is let go
    return torch.device(NAME, 0)
