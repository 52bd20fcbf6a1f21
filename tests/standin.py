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


def _host(value):
    return value.host if isinstance(value, OnDevice) else value


def _dispatch(func, args, kwargs):
    log, name = _logs[-1], func._schema.name.removeprefix("aten::").rstrip("_")
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    target = kwargs.get("device")
    to_host = target is not None and torch.device(target).type == "cpu"
    if target is not None and not to_host:
        kwargs = kwargs | {"device": torch.device("cpu")}
    strangers = [t for t in tensors if not isinstance(t, OnDevice)]
    if name == "copy" and len(args) > 1:
        to_host = not isinstance(args[0], OnDevice)
        if strangers and not to_host:
            log.uploads.append(name)
    # A number in a tensor is given to the kernel as its argument, as torch does on every device.
    elif any(t.dim() > 0 for t in strangers):
        raise MixedDevicesError(f"{func} of {[(t.device.type, tuple(t.shape)) for t in tensors]}")
    by_mask = name.startswith("index") and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:2])
    if name in _WAITS or to_host or by_mask or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        log.note_read(str(func))
    if name not in _FREE:
        log.kernels[name] += _launches(name, args)
    host_args, host_kwargs = pytree.tree_map(_host, (args, kwargs))
    found = func(*host_args, **host_kwargs)
    if to_host or name in ("_local_scalar_dense", "item", "is_nonzero", "equal"):
        return args[0] if name == "copy" else found
    return _as_given(func, args, kwargs, found)


def _launches(name, args):
    """One; but one a tensor where a list of tensors does not go through torch's kernel for lists."""
    lists = [each for each in args if isinstance(each, (list, tuple)) and each and isinstance(each[0], torch.Tensor)]
    if not name.startswith("_foreach") or not lists:
        return 1
    alike = all(
        t.stride() == first.stride() and t.dtype == first.dtype and t.shape == first.shape
        for row in zip(*lists, strict=True)
        for first, t in [(row[0], t) for t in row[1:]]
    )
    return 1 if alike else len(lists[0])


def _as_given(func, args, kwargs, found):
    """Results as tensors of the device; what was written to is what was given."""
    named = {a.name: a for a in func._schema.arguments}
    given = dict(zip(named, args, strict=False)) | kwargs
    written = [given[n] for n, a in named.items() if a.alias_info is not None and a.alias_info.is_write and n in given]
    if written:
        if not func._schema.returns:
            return None
        return written[0] if len(func._schema.returns) == 1 else tuple(written)
    return pytree.tree_map_only(torch.Tensor, OnDevice, found)


def _empty(size, *_, dtype=None, memory_format=None, **__):
    return OnDevice(torch.empty(size, dtype=dtype, memory_format=memory_format))


def _empty_strided(size, stride, dtype=None, **__):
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source, target, non_blocking=False):
    # Here arrive only tensors that torch brings by itself, those of `torch.tensor`.
    _logs[-1].uploads.append("tensor")
    _host(target).copy_(_host(source))
    return target


def _kernel(func, *args, **kwargs):
    return _dispatch(func, args, kwargs)


@functools.cache
def begin():
    """Make the device known to torch, for the rest of this process; the device."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    # Kernels that CUDA has, too; torch would compose them of others.
    for name in ("mish_backward", "silu_backward"):
        library.impl(name, functools.partial(_kernel, getattr(torch.ops.aten, name).default), "PrivateUse1")
    begin.library = library  # it unregisters when it is let go
    return torch.device(NAME, 0)
