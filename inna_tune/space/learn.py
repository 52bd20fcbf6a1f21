"""Priors and portfolios learned from finished studies.

Everything is learned in the numbers that mean the same on every data set: those of the coordinates (α̃, ζ, r) where the space
has them, natural values elsewhere. Every study weighs the same, whatever its length.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from inna_tune.space.coordinates import Coordinate
from inna_tune.space.discrete import Categorical, Integer, Stepped
from inna_tune.space.laws import Array, Continuous, LogUniform, Uniform
from inna_tune.space.mixtures import Empirical, Mixture
from inna_tune.space.prior import MOST_FIRST, Prior
from inna_tune.space.space import NET_PARAMETERS, SearchSpace, When
from inna_tune.space.truncated import LogNormal, Normal

CURVATURE = "inna_tune:curvature"

_COMPLETE = (TrialState.COMPLETE,)

# Winners of one study are alike: fewer than three say little of where the good region ends.
_MIN_WINNERS = 3

# Settings closer than this, in units of the sides of the space, count as one.
_SAME = 0.01


def learn(
    studies: Sequence[optuna.Study],
    *,
    space: SearchSpace | None = None,
    top: float = 0.1,
    kind: str = "parametric",
    n_portfolio: int = 8,
) -> Prior:
    """Laws of the best settings of past studies, and a portfolio of them.

    Parameters
    ----------
    studies : sequence of optuna.Study
        Finished, of one objective each, over the same parameters.
    space : SearchSpace, optional
        Names and bounds of the parameters; None: ``SearchSpace.inna`` at curvature 1, with the parameters of the net where
        all studies have them. Each study's curvature is read from its user attribute ``inna_tune:curvature``.
    top : float, default=0.1
        Share of a study's finished trials that count as its best, at least three.
    kind : {"parametric", "empirical"}
        Normal laws on the scale of each parameter, or kernel densities of the settings themselves.
    n_portfolio : int, default=8
        Settings in the portfolio, at most 500.

    Returns
    -------
    Prior

    Raises
    ------
    ValueError
        If there are no studies, one has no finished trial, several objectives or other parameters, or lacks the curvature.

    Notes
    -----
    Each law is mixed with its flat counterpart, of the weight of one study more, and spreads further the fewer studies there
    are: what n studies have in common says of the next one only so much (the predictive variance of a normal law,
    σ²(1 + 1/n), and a kernel of Silverman's width for n observations, not for all winners).
    """
    if not studies:
        raise ValueError("studies: give at least one finished study to learn from")
    if not 0 < top <= 1:
        raise ValueError(f"top={top!r} must lie in (0, 1], such as 0.1 for the best tenth")
    if kind not in ("parametric", "empirical"):
        raise ValueError(f"kind={kind!r} must be 'parametric' or 'empirical'")
    if not 0 <= n_portfolio <= MOST_FIRST:
        raise ValueError(f"n_portfolio={n_portfolio!r} must lie between 0 and {MOST_FIRST}")
    template = _template(studies) if space is None else space
    read = [read_study(study, template) for study in studies]
    winners: list[list[dict[str, Any]]] = []
    for settings, losses in read:
        count = min(len(losses), max(_MIN_WINNERS, math.ceil(top * len(losses))))
        winners.append([settings[i] for i in np.argsort(losses, kind="stable")[:count]])
    laws: dict[str, Any] = {}
    for name, entry in template.items():
        observed = [[s[name] for s in best if name in s] for best in winners]
        laws[name] = _relearn(entry, observed, kind)
    provenance = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"optuna": optuna.__version__},
        "top": top,
        "kind": kind,
        "studies": [_describe(study) for study in studies],
    }
    return Prior(SearchSpace(laws), tuple(_portfolio(template, read, n_portfolio)), provenance)


def portfolio(
    studies: Sequence[optuna.Study], n: int, *, space: SearchSpace | None = None
) -> list[dict[str, Any]]:
    """Settings that cover the data sets best, chosen greedily among those tried.

    Each next setting is the one that lowers most the mean over studies of the best loss so far. Losses count from 0, a
    study's best, to 1, its median. What a setting that a study did not try would have reached there is told from its
    nearest neighbours in the prior's flat places.

    Parameters
    ----------
    studies, space
        As for `learn`.
    n : int
        Most settings.

    Returns
    -------
    list of dict
        Pure numbers where the space has coordinates.
    """
    template = _template(studies) if space is None else space
    return _portfolio(template, [read_study(study, template) for study in studies], n)


# ---------------------------------------------------------------------- reading


def read_study(study: optuna.Study, template: SearchSpace) -> tuple[list[dict[str, Any]], Array]:
    """Settings of a study's finished trials in pure numbers, and their losses (lower is better).

    Parameters
    ----------
    study : optuna.Study
    template : SearchSpace
        Names and bounds.

    Raises
    ------
    ValueError
        As for `learn`.
    """
    name = study.study_name
    if len(study.directions) != 1:
        raise ValueError(f"study {name!r} has several objectives; priors are learned from studies of one")
    trials = [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state == TrialState.COMPLETE and t.value is not None and math.isfinite(t.value)
    ]
    if not trials:
        raise ValueError(f"study {name!r} has no finished trial to learn from; leave it out or finish it")
    curvature = study.user_attrs.get(CURVATURE)
    if curvature is None and any(isinstance(template.law(name), Coordinate) for name in template):
        raise ValueError(
            f"study {name!r} has no curvature ({CURVATURE}), so its settings cannot be compared with other data sets'; "
            "learn in natural values: give a space without coordinates"
        )
    own = template if curvature is None else template.at_curvature(float(curvature))
    sign = -1.0 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1.0
    settings = [_to_pure(own, trial, name) for trial in trials]
    return settings, np.array([sign * float(t.value) for t in trials])  # type: ignore[arg-type]


def _template(studies: Sequence[optuna.Study]) -> SearchSpace:
    """The shipped space, with what all of some studies say of the net."""
    whole = SearchSpace.inna(curvature=1.0, net=True)
    trials = [t.params for study in studies for t in study.get_trials(deepcopy=False, states=_COMPLETE)]

    def is_known(name: str) -> bool:
        law = whole.law(name)
        return isinstance(law, Categorical) and all(p.get(name) in law.choices for p in trials)

    return SearchSpace({n: law for n, law in whole.items() if n not in NET_PARAMETERS or is_known(n)})


def _to_pure(space: SearchSpace, trial: FrozenTrial, study: str) -> dict[str, Any]:
    pure: dict[str, Any] = {}
    for name in space:
        if not space.is_active(name, trial.params):
            continue
        if name not in trial.params:
            raise ValueError(
                f"study {study!r}: trial {trial.number} has no parameter {name!r}; learn from studies of one space, or give "
                "the space of these"
            )
        law, value = space.law(name), trial.params[name]
        if isinstance(law, Categorical):
            if value not in law.choices:
                raise ValueError(
                    f"study {study!r}: {name}={value!r} is not among the space's choices {list(law.choices)}"
                )
        else:
            bounds: Any = law.pure
            value = min(max(law.to_pure(value, trial.params), bounds.low), bounds.high)
        pure[name] = value
    return pure


def _describe(study: optuna.Study) -> dict[str, Any]:
    trials = study.get_trials(deepcopy=False)
    begun = min((t.datetime_start for t in trials if t.datetime_start is not None), default=None)
    said = study.user_attrs.get("inna_tune:fingerprint")
    described: dict[str, Any] = {
        "name": study.study_name,
        "trials": len(trials),
        "begun": None if begun is None else begun.isoformat(timespec="seconds"),
    }
    if isinstance(said, dict):
        # What tells data apart, not the data's own column names.
        described["data"] = {k: said[k] for k in ("rows", "task", "metric", "content") if k in said}
    return described


# ---------------------------------------------------------------------- laws


def _relearn(entry: Any, observed: Sequence[Sequence[Any]], kind: str) -> Any:
    """The same entry with a law learned from each study's winners."""
    if isinstance(entry, When | Coordinate):
        return replace(entry, law=_relearn(entry.law, observed, kind))
    present = [values for values in observed if values]
    if isinstance(entry, Categorical):
        weights = np.full(len(entry.choices), 1.0 / len(entry.choices))
        for values in present:
            weights += np.bincount([entry.index(v) for v in values], minlength=len(weights)) / len(values)
        return replace(entry, weights=tuple((weights / weights.sum()).round(6).tolist()))
    if isinstance(entry, Integer | Stepped):
        return replace(entry, continuous=_learn_continuous(entry.continuous, present, kind))
    return _learn_continuous(entry, present, kind)


def _learn_continuous(law: Continuous, observed: Sequence[Sequence[float]], kind: str) -> Continuous:
    low, high = law.low, law.high
    flat: Continuous = LogUniform(low, high) if law.log else Uniform(low, high)
    if not observed:
        return flat
    n = len(observed)
    values = np.concatenate([np.asarray(v, dtype=float) for v in observed])
    shares = np.concatenate([np.full(len(v), 1.0 / len(v)) for v in observed]) / n
    scaled = np.log(values) if law.log else values
    width = math.log(high / low) if law.log else high - low
    mean = float(shares @ scaled)
    # No narrower than a twentieth of the bounds: winners of few trials may agree by chance.
    std = max(math.sqrt(float(shares @ (scaled - mean) ** 2)), width / 20)
    if kind == "parametric":
        spread = std * math.sqrt(1.0 + 1.0 / n)
        learned: Continuous = (
            LogNormal(float(np.exp(mean)), spread, low=low, high=high)
            if law.log
            else Normal(mean, spread, low=low, high=high)
        )
    else:
        learned = Empirical(
            tuple(values.tolist()),
            low=low,
            high=high,
            bandwidth=0.9 * std * n**-0.2,
            weights=tuple(shares.tolist()),
            log=law.log,
        )
    return Mixture(((float(n), learned), (1.0, flat)))


# ---------------------------------------------------------------------- portfolio


def _portfolio(
    template: SearchSpace, read: Sequence[tuple[list[dict[str, Any]], Array]], n: int
) -> list[dict[str, Any]]:
    candidates = [_rounded(setting) for settings, _ in read for setting in settings]
    places = np.stack([place(template, setting) for setting in candidates])
    regrets = np.empty((len(read), len(candidates)))
    for row, (settings, losses) in enumerate(read):
        best, middle = float(losses.min()), float(np.median(losses))
        scale = middle - best if middle > best else 1.0
        own = np.clip((losses - best) / scale, 0.0, 1.0)
        regrets[row] = _predict(np.stack([place(template, s) for s in settings]), own, places)
    chosen: list[int] = []
    reached = np.ones(len(read))
    open_ = np.ones(len(candidates), dtype=bool)
    while len(chosen) < n and open_.any():
        after = np.where(open_, np.minimum(reached[:, None], regrets).mean(0), np.inf)
        index = int(after.argmin())
        if chosen and after[index] >= reached.mean():
            break
        chosen.append(index)
        # The same setting may have been tried on other data, its pure numbers equal up to rounding.
        open_ &= ((places - places[index]) ** 2).sum(1) > _SAME**2
        reached = np.minimum(reached, regrets[:, index])
    return [dict(candidates[i]) for i in chosen]


def _rounded(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(f"{v:.4g}") if isinstance(v, float) else v for name, v in setting.items()}


def place(template: SearchSpace, setting: Mapping[str, Any]) -> Array:
    """Where a setting lies in the unit cube of the flat laws; choices that differ lie a whole side apart."""
    found: list[float] = []
    for name in template:
        law = template.law(name)
        if isinstance(law, Categorical):
            found += [float(name in setting and setting[name] == c) / math.sqrt(2) for c in law.choices]
        elif name not in setting:
            found.append(0.5)
        else:
            found.append(law.pure.places(setting[name])[1])
    return np.array(found)


def _predict(known: Array, values: Array, asked: Array, neighbours: int = 5) -> Array:
    """Mean of the nearest values, weighted by inverse squared distance; a value that is known is itself."""
    squared = ((asked[:, None] - known[None]) ** 2).sum(-1)
    nearest = np.argsort(squared, axis=1, kind="stable")[:, :neighbours]
    weights = 1.0 / (np.take_along_axis(squared, nearest, 1) + 1e-12)
    return np.asarray((weights * values[nearest]).sum(1) / weights.sum(1))
