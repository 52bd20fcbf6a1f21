"""Tensors as numpy's arrays and back: what pickles, copies and files of skops hold of them, on the CPU wherever they were."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from inna_tune.engine.ordinary import ordinary_tensors

_TENSOR = "tensor of"
# Types that numpy has not; their bits go as whole numbers.
_BITS = {torch.bfloat16: torch.int16}


def as_arrays(value: Any) -> Any:
    """A tensor, or lists and dicts with such, with a dict of plain data in place of each.

    Parameters
    ----------
    value : object

    Returns
    -------
    object
        What is no tensor is the same.
    """
    if isinstance(value, Tensor):
        own = value.detach().cpu()
        bits = own.view(_BITS.get(own.dtype, own.dtype))
        return {_TENSOR: str(own.dtype).removeprefix("torch."), "values": bits.numpy()}
    if isinstance(value, dict):
        return {key: as_arrays(each) for key, each in value.items()}
    return [as_arrays(each) for each in value] if isinstance(value, list) else value


def as_tensors(value: Any) -> Any:
    """What `as_arrays` was given.

    Parameters
    ----------
    value : object
        Tensors, as older pickles hold them, stay.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If the type of a tensor is none of torch's.
    """
    if isinstance(value, dict) and _TENSOR in value:
        dtype = getattr(torch, value[_TENSOR], None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{value[_TENSOR]!r} is no type of numbers")
        # What comes out of a file may be read-only, or of another's memory.
        with ordinary_tensors():
            return torch.from_numpy(np.array(value["values"])).view(dtype)
    if isinstance(value, dict):
        return {key: as_tensors(each) for key, each in value.items()}
    return [as_tensors(each) for each in value] if isinstance(value, list) else value
