"""How near a fitted net is to a stationary point: the certificate that INNA's theory speaks of."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from inna_tune.engine import ordinary_tensors
from inna_tune.engine.forward import stacked_views
from inna_tune.estimators.encoded import EncodedTable
from inna_tune.optim import stationarity


class StationarityMixin:
    """Adds ``stationarity`` to an estimator whose nets are stacked in ``weights_``."""

    @ordinary_tensors()
    def stationarity(self, X: Any, y: Any, sample_weight: Any = None) -> npt.NDArray[np.float64]:
        r"""Norm of the summed generalized gradient of the training loss over all batches, at the fitted weights.

        Zero, of the loss on the rows that were trained on, says that the weights are a D-critical point, which is what the
        limit points of INNA are by its theory. It does not say that they are a critical point of the loss where that has
        kinks, nor a minimum; and weights kept at the epoch of the best validation loss, as early stopping does, need be
        near no stationary point of the training loss. See `inna_tune.optim.stationarity`.

        Parameters
        ----------
        X : DataFrame or array of shape [n_samples, n_features]
            The rows that were trained on, or others.
        y : array of shape [n_samples]
        sample_weight : array of shape [n_samples], optional

        Returns
        -------
        ndarray of shape [n_members]
            Norms of the gradient of the mean loss a row (cross-entropy, or squared error of the standardised target),
            without dropout, label smoothing and weight decay, in the order of ``members_``.

        References
        ----------
        Castera, Bolte, Févotte, Pauwels (2021). An inertial Newton algorithm for deep learning. JMLR 22(134), section 3.
        """
        check_is_fitted(self, "weights_")
        estimator: Any = self
        table: EncodedTable = estimator._encode_more(X, y, sample_weight)
        device, dtype = estimator.weights_.device, estimator.weights_.dtype
        tensors = table.tensors(device)
        weights = estimator.weights_.detach()
        views = {
            name: view.clone().requires_grad_(name not in estimator.net_.buffers)
            for name, view in stacked_views(estimator.net_, weights).items()
        }
        rows = len(tensors.x)
        share = torch.ones(rows, dtype=dtype, device=device) if tensors.weight is None else tensors.weight
        share = share / share.sum()

        def losses() -> Iterator[Tensor]:
            size = int(estimator.batch_size)
            for start in range(0, rows, size):
                part = slice(start, start + size)
                x, target = tensors.x[part], tensors.target[part]
                output = estimator.net_(views, x.expand(len(weights), -1, -1))
                target = target.expand(len(weights), *target.shape)
                yield (estimator._loss.per_row(output.to(dtype), target) * share[part]).sum()

        found = stationarity(losses(), list(views.values()), member_axis=True)
        return np.asarray(found.double().cpu().numpy())
