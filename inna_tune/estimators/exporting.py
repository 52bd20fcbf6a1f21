"""Fitted estimators as plain torch modules, which `torch.export` and ONNX can hold: no member axis, no blocks, no pandas.

A table whose columns are all plain numbers is encoded inside, in float64 as `TableEncoder` does. Of any other the module reads
what the estimator's encoder gives, and `exported_inputs` makes that of a table.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from inna_tune.engine.forward import stacked_views
from inna_tune.estimators.base import InnaEstimator
from inna_tune.estimators.classifier import InnaClassifier
from inna_tune.estimators.encoder import TableEncoder
from inna_tune.estimators.ensemble import Ensemble, EnsembleClassifier
from inna_tune.estimators.frames import as_frame
from inna_tune.estimators.numbers import RANKS_SHARE, BlendedPlan, NumericPlan, SpikedPlan
from inna_tune.estimators.plans import ColumnPlan, DroppedPlan
from inna_tune.estimators.recalibration import median_weights
from inna_tune.estimators.regressor import quantiles_of
from inna_tune.nets import ModuleNet, TabularNet
from inna_tune.nets.categorical import CATEGORIES
from inna_tune.nets.factory import named_tensors
from inna_tune.nets.linear import BIAS, SCALE, WEIGHT, LinearPath
from inna_tune.nets.numeric import PREFIX, PBLDEmbedding, PeriodicEmbedding, PiecewiseEmbedding

RAW, ENCODED = "X", "encoded"  # what inputs are called; of several encoders with a number behind

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "selu": F.selu,
}


class _Constants(nn.Module):
    """A module whose tensors are named as what they are of."""

    def keep(self, name: str, value: Any, dtype: torch.dtype = torch.float32) -> None:
        self.register_buffer(name, torch.as_tensor(np.array(value), device="cpu").to(dtype))

    def of(self, name: str) -> Tensor:
        """The tensor of a name, which may be one with dots."""
        found: Tensor = getattr(self, name.replace(".", "_"))
        return found


class _NumberEncoder(_Constants):
    """Rows of plain numbers [B, n_columns] as the encoder has them, float32 [B, n_numbers + n_floats]."""

    def __init__(self, plans: Sequence[ColumnPlan]) -> None:
        super().__init__()
        used = [(i, p) for i, p in enumerate(plans) if isinstance(p, NumericPlan)]
        self._scaled = [k for k, (_, p) in enumerate(used) if p.is_scaled]
        self._curved = [k for k, (_, p) in enumerate(used) if not p.is_scaled]
        self._order = list(np.argsort([*self._scaled, *self._curved], kind="stable"))
        self._floats = [
            (k, kind)
            for k, (_, p) in enumerate(used)
            for kind in (["gap"] if p.indicator is not None else [])
            + (["spike"] if isinstance(p, SpikedPlan) else [])
        ]
        self.keep("places", [i for i, _ in used], torch.int64)
        self.keep("center", [used[k][1].center for k in self._scaled], torch.float64)
        self.keep("scale", [used[k][1].scale for k in self._scaled], torch.float64)
        spikes = [p.spike if isinstance(p, SpikedPlan) else np.nan for _, p in used]
        self.keep("spikes", spikes, torch.float64)
        self.keep(
            "shares",
            [used[k][1].indicator if kind == "gap" else used[k][1].share for k, kind in self._floats],  # type: ignore[attr-defined]
            torch.float64,
        )
        for j, k in enumerate(self._curved):
            self.keep(f"quantiles_{j}", used[k][1].quantiles, torch.float64)
        scaled = [used[k][1] for k in self._scaled]
        self._blends = any(isinstance(p, BlendedPlan) for p in scaled)
        if self._blends:
            # What is scaled alone has a share of nothing.
            curves = [
                (p.quantiles, p.scores) if isinstance(p, BlendedPlan) else ([0.0, 1.0],) * 2 for p in scaled
            ]
            self.keep("blend", [RANKS_SHARE * isinstance(p, BlendedPlan) for p in scaled], torch.float64)
            self.keep("blend_quantiles", _as_long([xs for xs, _ in curves]), torch.float64)
            self.keep("blend_scores", _as_long([ys for _, ys in curves]), torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        x = x.double()[:, self.of("places")]
        is_spike = x == self.of("spikes")
        numbers = []
        if self._scaled:
            own = x[:, self._scaled]
            scaled = (own / self.of("scale") - self.of("center") / self.of("scale")).clamp(-1e30, 1e30)
            squashed = scaled / torch.sqrt(1.0 + (scaled / 3.0) ** 2)
            if self._blends:
                scores = _interpolated(scaled, self.of("blend_quantiles"), self.of("blend_scores"))
                squashed = self.of("blend") * scores + (1.0 - self.of("blend")) * squashed
            numbers.append(torch.where(torch.isnan(own), torch.zeros_like(own), squashed))
        for j, k in enumerate(self._curved):
            scores = _normal_scores(x[:, k], self.of(f"quantiles_{j}"))
            gone = torch.isnan(x[:, k]) | is_spike[:, k]
            numbers.append(torch.where(gone, torch.zeros_like(scores), scores)[:, None])
        parts = [torch.cat(numbers, 1)[:, self._order]]
        if self._floats:
            holds = [torch.isnan(x[:, k]) if kind == "gap" else is_spike[:, k] for k, kind in self._floats]
            parts.append(torch.stack(holds, 1).double() - self.of("shares"))
        return torch.cat(parts, 1).float()


def _as_long(rows: Sequence[Any]) -> list[Any]:
    """Rows as long as the longest, by their last ones, which changes nothing of what lies between."""
    longest = max(map(len, rows))
    return [np.pad(row, (0, longest - len(row)), "edge") for row in rows]


def _normal_scores(values: Tensor, quantiles: Tensor) -> Tensor:
    """As `inna_tune.estimators.numbers.normal_scores`, of values [B] that are there."""
    ranks = torch.linspace(0.0, 1.0, len(quantiles), dtype=torch.float64, device=values.device)
    last = _interpolated(values[:, None], quantiles[None], ranks[None])[:, 0]
    first = 1.0 - _interpolated(-values[:, None], -quantiles.flip(0)[None], ranks[None])[:, 0]
    edge = 0.5 / len(quantiles)
    return _normal_quantile(((first + last) / 2).clamp(edge, 1.0 - edge))


def _interpolated(values: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """As `numpy.interp`, of values [B, F] by xs and ys [F, K] of their columns; of equal xs the last one counts."""
    place = ((values[:, :, None] >= xs).sum(2) - 1).clamp(0, xs.shape[1] - 2)
    column = torch.arange(len(xs), device=values.device)
    x0, x1, y0, y1 = xs[column, place], xs[column, place + 1], ys[column, place], ys[column, place + 1]
    width = x1 - x0
    share = torch.where(width > 0, (values - x0) / torch.where(width > 0, width, torch.ones_like(width)), 0.0)
    inside = y0 + share.nan_to_num(0.0).clamp(0.0, 1.0) * (y1 - y0)
    return torch.where(values >= xs[:, -1], ys[:, -1], inside)


def _normal_quantile(p: Tensor) -> Tensor:
    """The normal law's quantile function, to 1e-15 for p from 1e-10 on: ONNX has none.

    Wichura, Algorithm AS 241: The Percentage Points of the Normal Distribution. Applied Statistics 37, 1988.
    """
    q = p - 0.5
    r = 0.180625 - q * q
    central = q * _polynomial(r, _CENTRAL[0]) / _polynomial(r, _CENTRAL[1])
    r = torch.sqrt(-torch.log(torch.minimum(p, 1.0 - p))) - 1.6
    tail = torch.sign(q) * _polynomial(r, _TAIL[0]) / _polynomial(r, _TAIL[1])
    return torch.where(q.abs() <= 0.425, central, tail)


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """By Horner's rule; the highest power comes first."""
    found = torch.full_like(x, coefficients[0])
    for each in coefficients[1:]:
        found = found * x + each
    return found


# Numerators and denominators, the highest power first; each pair of rows is one polynomial.
# fmt: off
_CENTRAL = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)
_TAIL = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)
# fmt: on


class _Members(_Constants):
    """The members of a `TabularNet`: encoded rows [B, in_features] to outputs [P, B, out_features]."""

    def __init__(self, net: TabularNet, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._net = net
        self._n_members = len(next(iter(tensors.values())))
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor.detach().cpu().float().clone())
        if isinstance(net.numeric, PiecewiseEmbedding):
            knots = np.array(net.numeric.knots)
            self.keep("knots", knots[:-1])
            self.keep("slopes", 1.0 / np.diff(knots))
        if net.categorical is not None:
            self.keep("starts", np.cumsum([0, *net.categories[:-1]]), torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        net = self._net
        linear = None if net.linear is None else self._linear(net.linear, x)
        x = self._inputs(x)
        *hidden, head = net.layers
        activate = _ACTIVATIONS[net.activation]
        if net.block == "plain" or not net.hidden_layer_sizes:
            for layer in hidden:
                x = activate(self._affine(layer.name, x))
        else:
            x = self._affine(hidden[0].name, x)
            for first, second in zip(hidden[1::2], hidden[2::2], strict=True):
                x = x + self._affine(second.name, activate(self._affine(first.name, x)))
            x = activate(x)
        output = self._affine(head.name, x)
        return output if linear is None else output * self.of(SCALE) + linear

    def _linear(self, path: LinearPath, x: Tensor) -> Tensor:
        """What the linear models tell, [P, B, out_features]."""
        weight, n_floats = self.of(WEIGHT), path.n_numeric + path.n_others
        found = path.floats(x) @ weight[:, :n_floats] + self.of(BIAS)
        if path.categories:
            codes = x[:, n_floats:].long() + self.of("starts") + n_floats
            rows = weight.index_select(1, codes.flatten())
            found = found + rows.reshape(self._n_members, *codes.shape, path.out_features).sum(2)
        return found

    def _affine(self, name: str, x: Tensor) -> Tensor:
        return x @ self.of(f"{name}.weight") + self.of(f"{name}.bias")

    def _inputs(self, x: Tensor) -> Tensor:
        """What the first layer reads, [P, B, width]."""
        net = self._net
        floats = x[:, : net.n_numeric + net.n_others].expand(self._n_members, -1, -1)
        parts = [floats]
        if net.numeric is not None:
            features = self._features(x[:, : net.n_numeric])
            weight, bias = self.of(f"{PREFIX}.weight"), self.of(f"{PREFIX}.bias")
            embedded = (features[..., None, :] @ weight[:, None]).squeeze(-2) + bias[:, None]
            if isinstance(net.numeric, PeriodicEmbedding):
                embedded = F.relu(embedded)
            parts = [
                embedded.flatten(2),
                floats if net.numeric.keeps_numbers else floats[..., net.n_numeric :],
            ]
        if net.categorical is not None:
            codes = x[:, net.n_numeric + net.n_others :].long() + self.of("starts")
            vectors = self.of(CATEGORIES).index_select(1, codes.flatten())
            parts.append(vectors.reshape(self._n_members, -1, net.categorical.width))
        return torch.cat(parts, 2)

    def _features(self, x: Tensor) -> Tensor:
        """Features of numbers [B, F], [B, F, k] or [P, B, F, k]."""
        numeric = self._net.numeric
        if isinstance(numeric, PiecewiseEmbedding):
            return ((x[:, :, None] - self.of("knots")) * self.of("slopes")).clamp(0.0, 1.0)
        assert isinstance(numeric, PeriodicEmbedding | PBLDEmbedding)
        angles = x[:, :, None] * (numeric._angular_scale * self.of(f"{PREFIX}.frequency")[:, None])
        if isinstance(numeric, PeriodicEmbedding):
            return torch.cat([torch.sin(angles), torch.cos(angles)], -1)
        return torch.cos(angles + numeric._phase_scale * self.of(f"{PREFIX}.phase")[:, None])


class _Modules(nn.Module):
    """The members of a person's own module, one by one."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.modules_ = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([module(x) for module in self.modules_])


def _members(model: InnaEstimator) -> nn.Module:
    net = model.net_
    views = stacked_views(net, model.weights_)
    if isinstance(net, TabularNet):
        return _Members(net, views)
    assert isinstance(net, ModuleNet)
    found: list[nn.Module] = []
    for i in range(len(model.weights_)):
        module = copy.deepcopy(net._module).float().eval()
        with torch.no_grad():
            for name, tensor in named_tensors(module).items():
                tensor.copy_(views[name][i])
        found.append(module.requires_grad_(False))
    return _Modules(found)


class _Widen(_Constants):
    """As `inna_tune.estimators.recalibration.scaled`: quantiles [B, n_quantiles], their distances from the median scaled."""

    def __init__(self, quantiles: Sequence[float], factors: npt.NDArray[np.float64]) -> None:
        super().__init__()
        self.keep("median", median_weights(quantiles_of(quantiles)))
        self.keep("factors", factors)

    def forward(self, found: Tensor) -> Tensor:
        median = (found * self.of("median")).sum(-1, keepdim=True)
        return (median + self.of("factors") * (found - median)).sort(-1).values


class _Model(_Constants):
    """One estimator behind its encoder: encoded rows to probabilities [B, n_classes], or values."""

    def __init__(self, model: Any, classes: npt.NDArray[Any] | None) -> None:
        super().__init__()
        self.members = _members(model)
        self._is_classifier = isinstance(model, InnaClassifier)
        self._pools_logarithms = self._is_classifier and model.n_members == "auto" and len(model.weights_) > 1
        self._has_all = classes is None or len(model.classes_) == len(classes)
        if self._is_classifier:
            places = np.searchsorted(model.classes_ if classes is None else classes, model.classes_)
            known = np.zeros((len(places), len(model.classes_ if classes is None else classes)))
            known[np.arange(len(places)), places] = 1.0
            self.keep("known", known)
        else:
            self._one_target, self._has_quantiles = bool(model._one_target), model.quantiles is not None
            self.keep("mean", model.target_mean_)
            self.keep("scale", model.target_scale_)
            if self._has_quantiles:
                self.widen = _Widen(model.quantiles, model.quantile_factors_)

    def forward(self, encoded: Tensor) -> Tensor:
        raw: Tensor = self.members(encoded)
        if not self._is_classifier:
            values = raw.mean(0)
            if self._has_quantiles:
                found: Tensor = self.widen(values.sort(-1).values * self.of("scale") + self.of("mean"))
                return found
            values = values * self.of("scale") + self.of("mean")
            return values[:, 0] if self._one_target else values
        if self._pools_logarithms:
            found = torch.softmax(torch.log_softmax(raw, -1).mean(0), -1)
        else:
            found = torch.softmax(raw, -1).mean(0)
        return found if self._has_all else found @ self.of("known")


class ExportedModel(_Constants):
    """A fitted estimator, or an ensemble, as a torch module that depends on nothing else; `to_module` makes it.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
        Fitted.
    encoded : bool
        Whether it reads encoded rows.

    Attributes
    ----------
    input_names : tuple of str
        ``("X",)`` where rows of plain numbers are encoded inside, float64 [B, n_features]; else what the encoders give,
        float32 [B, n_encoded] each.
    output_names : tuple of str
        ``("probabilities", "place")`` of a classifier, whose place is that of the most probable of its classes;
        ``("prediction",)`` of a regressor, or ``("quantiles",)`` [B, n_quantiles].
    """

    def __init__(self, model: Any, *, encoded: bool) -> None:
        super().__init__()
        models = _models(model)
        classes = model.classes_ if isinstance(model, EnsembleClassifier) else None
        self.models = nn.ModuleList(_Model(own, classes) for own in models)
        self.keep("weights", model.weights_ if isinstance(model, Ensemble) else [1.0])
        encoders = _encoders(model)
        self._encoder_of = [next(i for i, e in enumerate(encoders) if e is own.encoder_) for own in models]
        self.encoders = nn.ModuleList(() if encoded else (_NumberEncoder(e.plan_) for e in encoders))
        self.widths = [sum(encoder.sections) for encoder in encoders]
        several = len(encoders) > 1
        self.input_names = (
            tuple(f"{ENCODED}_{i}" if several else ENCODED for i in range(len(encoders)))
            if encoded
            else (RAW,)
        )
        self._is_classifier = hasattr(model, "classes_")
        has_quantiles = getattr(models[0], "quantiles", None) is not None
        factors = getattr(model, "quantile_factors_", None) if isinstance(model, Ensemble) else None
        self.widen = None if factors is None else _Widen(models[0].quantiles, factors)
        of_values = ("quantiles",) if has_quantiles else ("prediction",)
        self.output_names = ("probabilities", "place") if self._is_classifier else of_values

    def forward(self, *inputs: Tensor) -> Any:
        encoded = [encoder(inputs[0]) for encoder in self.encoders] if len(self.encoders) else list(inputs)
        found = [
            self.of("weights")[i] * model(encoded[place])
            for i, (model, place) in enumerate(zip(self.models, self._encoder_of, strict=True))
        ]
        total = found[0]
        for each in found[1:]:
            total = total + each
        if self.widen is not None:
            total = self.widen(total)
        return (total, total.argmax(1)) if self._is_classifier else total


def to_module(model: Any, *, encoded: bool | str = "auto") -> ExportedModel:
    """A fitted estimator as a plain torch module, for `torch.export` and the like.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
        Fitted.
    encoded : bool or "auto", default="auto"
        Whether the module reads encoded rows, as `exported_inputs` makes them of a table, or a table of plain numbers itself,
        NaN where one is missing. "auto": encoded only where a column is anything else, which no module can read.

    Returns
    -------
    ExportedModel
        In float32, on the CPU, in evaluation mode.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError, ValueError
        If it is another's, or a column that is not plain numbers should be read.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from inna_tune import InnaClassifier
    >>> from inna_tune.estimators import to_module
    >>> X, y = load_iris(return_X_y=True)
    >>> model = InnaClassifier(hidden_layer_sizes=(8,), max_epochs=5, random_state=0).fit(X, y)
    >>> probabilities, place = to_module(model)(torch.tensor(X[:3]))
    >>> bool((abs(probabilities.numpy() - model.predict_proba(X[:3])) < 1e-5).all())
    True
    """
    if not isinstance(model, InnaEstimator | Ensemble):
        raise TypeError(
            f"model={model!r} must be an InnaClassifier, an InnaRegressor or an ensemble of them; of a pipeline give the last "
            "step."
        )
    check_is_fitted(model, "weights_")
    others = _unreadable(model)
    if encoded is False and others:
        raise ValueError(
            f"encoded=False: a module reads plain numbers only, and these columns are none: {', '.join(others[:10])}. Leave "
            "it at 'auto', and encode tables by exported_inputs."
        )
    return ExportedModel(model, encoded=bool(others) if encoded == "auto" else bool(encoded)).eval()


def exported_inputs(model: Any, X: Any, *, encoded: bool | str = "auto") -> dict[str, npt.NDArray[Any]]:
    """A table as what `to_module` and `to_onnx` of a model read, by name.

    Parameters
    ----------
    model : InnaClassifier, InnaRegressor, EnsembleClassifier or EnsembleRegressor
        Fitted.
    X : DataFrame or array of shape [n_samples, n_features]
    encoded : bool or "auto", default="auto"
        As there.

    Returns
    -------
    dict of str to ndarray
        ``X``, float64 [n_samples, n_features]; or ``encoded``, float32 [n_samples, n_encoded], numbered where an ensemble has
        several encoders.
    """
    check_is_fitted(model, "weights_")
    frame = as_frame(model, X, reset=False)
    wants_encoded = bool(_unreadable(model)) if encoded == "auto" else bool(encoded)
    if not wants_encoded:
        return {RAW: frame.to_numpy(dtype=np.float64, na_value=np.nan)}
    encoders = _encoders(model)
    names = [f"{ENCODED}_{i}" if len(encoders) > 1 else ENCODED for i in range(len(encoders))]
    return {name: encoder.encode(frame, np.float32) for name, encoder in zip(names, encoders, strict=True)}


def _models(model: Any) -> list[InnaEstimator]:
    return list(model.models_) if isinstance(model, Ensemble) else [model]


def _encoders(model: Any) -> list[TableEncoder]:
    """The encoders of a model, each once."""
    found: list[TableEncoder] = []
    for own in _models(model):
        if not any(own.encoder_ is each for each in found):
            found.append(own.encoder_)
    return found


def _unreadable(model: Any) -> list[str]:
    """Names of columns that are not plain numbers."""
    kinds = {column.name: column.kind for column in model.schema_.columns}
    found = []
    for encoder in _encoders(model):
        for plan in encoder.plan_:
            is_number = isinstance(plan, NumericPlan) and plan.form is None
            told = kinds.get(plan.name) in ("number", "boolean", "mixed", None)
            if not isinstance(plan, DroppedPlan) and not (is_number and told) and plan.name not in found:
                found.append(plan.name)
        if not any(isinstance(plan, NumericPlan) for plan in encoder.plan_) and "no column" not in found:
            found.append("no column")
    return found
