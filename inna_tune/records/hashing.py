"""Short digests of tables, columns, arrays and sparse matrices, the same in every process."""

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

# What a digest that stands among plain values begins with.
DIGEST = "blake2b:"


def digest(*parts: bytes) -> str:
    """32 hexadecimal digits of some bytes, told apart from the same bytes cut elsewhere."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def content(values: Any) -> str:
    """A digest of values in their order; of a table column by column, without the index.

    Parameters
    ----------
    values : DataFrame, Series, Index, array or sparse matrix
    """
    if isinstance(values, pd.DataFrame):
        return digest(*(content(values.iloc[:, i]).encode() for i in range(values.shape[1])))
    if isinstance(values, pd.Series | pd.Index):
        values = pd.Series(values)
        if values.dtype == object:  # pandas hashes no mixed cells, and takes 1 for True
            values = values.map(repr, na_action="ignore")
        return digest(pd.util.hash_pandas_object(values, index=False).to_numpy().tobytes())
    if sparse.issparse(values):
        matrix = sparse.csr_array(values, copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        parts = (matrix.data, matrix.indices.astype("<i8"), matrix.indptr.astype("<i8"))
        return digest(*(_bytes(part) for part in parts))
    array = np.asarray(values)
    return digest(repr(array.shape).encode(), _bytes(array))


def _bytes(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype.kind in "biufcmM":
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    return content(pd.Series(np.ravel(array), dtype=object)).encode()
