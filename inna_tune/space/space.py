"""Search spaces: named priors in an order, some of which depend on those before."""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from inna_tune.optim.dynamics import settings_from_curvature
from inna_tune.space.coordinates import COORDINATES, Coordinate, DampingRatio, ScaledFriction, StableStep
from inna_tune.space.discrete import Categorical
from inna_tune.space.laws import Law, LogUniform, Uniform, read_fields
from inna_tune.space.truncated import Beta, LogNormal
from inna_tune.visible import get_logger

logger = get_logger(__name__)

# Threads of one study must not say a thing twice that is said once.
_SAYING = threading.Lock()

_FORMAT = 1

# What a net is like. Of single nets on ten tables (two to eight seeds) residual blocks lowered the loss by 6% on churn and
# raised it by 4% on diamonds, a third layer went from -3 to +2%, half the width from -4 to +4%, so that they are worth a
# trial, and what the estimators have keeps the greater half. Twice the width gained nowhere, other embeddings lost.
_NET_LAWS: dict[str, Categorical] = {
    "block": Categorical(("plain", "residual"), (0.6, 0.4)),
    "hidden_layer_sizes": Categorical(("256-256", "256-256-256", "128-128"), (0.5, 0.3, 0.2)),
}
NET_PARAMETERS = tuple(_NET_LAWS)

# Every friction is below twice every damping ratio, so that all of them go together.
_PURE_LAWS: dict[str, LogNormal] = {
    "friction": LogNormal(0.12, 1.0, low=0.01, high=0.65),
    "damping": LogNormal(0.75, 0.35, low=0.35, high=2.5),
    "step_ratio": LogNormal(2.0, 0.7, low=0.25, high=16.0),
}


@dataclass(frozen=True)
class When:
    """A parameter that there is only while an earlier categorical one has certain values.

    Parameters
    ----------
    parameter : str
        The earlier parameter; its law is a `Categorical`.
    values : sequence
        The choices under which this parameter exists.
    law : Law or Coordinate
        Its law there.
    """

    parameter: str
    values: Sequence[Any]
    law: "Law | Coordinate"

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not self.values:
            raise ValueError(f"When: values={self.values!r} must be a sequence of one or more choices")
        object.__setattr__(self, "values", tuple(self.values))
        if not isinstance(self.law, Law | Coordinate):
            raise ValueError(f"When: law={self.law!r} must be a law")

    @property
    def words(self) -> str:
        """The condition, as a person says it."""
        return f"where {self.parameter} is {', '.join(map(str, self.values))}"

    def at_curvature(self, curvature: float) -> "When":
        """The same condition, its law on a data set of another curvature."""
        return replace(self, law=self.law.at_curvature(curvature))


Entry: TypeAlias = Law | Coordinate | When


class SearchSpace(Mapping[str, Entry]):
    """Named priors; `suggest` turns them into a configuration.

    Parameters
    ----------
    laws : mapping of str to Law, Coordinate or When
        In the order of suggestion: a parameter may depend only on those before it.

    Raises
    ------
    ValueError
        If a name is no Python identifier, a law is none, or a parameter depends on one that does not come before it.

    Examples
    --------
    >>> import optuna
    >>> from inna_tune.space import LogNormal, PriorSampler, SearchSpace, Uniform
    >>> space = SearchSpace({"lr": LogNormal(0.1, 1.0, low=1e-3, high=1.0), "alpha": Uniform(0.0, 1.0)})
    >>> study = optuna.create_study(sampler=PriorSampler(None, space, seed=0))
    >>> sorted(space.suggest(study.ask()))
    ['alpha', 'lr']
    """

    def __init__(self, laws: Mapping[str, Entry]) -> None:
        if not laws:
            raise ValueError("a search space needs at least one parameter")
        self._laws: dict[str, Entry] = {}
        self._said = False
        for name, entry in laws.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"parameter name {name!r} must be a Python identifier")
            if not isinstance(entry, Law | Coordinate | When):
                raise ValueError(
                    f"parameter {name!r}: {entry!r} is not a law; use Uniform, LogNormal, Categorical, …"
                )
            for needed in self._needs(entry):
                if needed not in self._laws:
                    place = "comes after it" if needed in laws else "is not in the space"
                    raise ValueError(
                        f"parameter {name!r} depends on {needed!r}, which {place}; put {needed!r} before it"
                    )
            if isinstance(entry, When):
                self._check_condition(name, entry)
            self._laws[name] = entry

    @staticmethod
    def _needs(entry: Entry) -> tuple[str, ...]:
        if isinstance(entry, When):
            return (entry.parameter, *SearchSpace._needs(entry.law))
        return entry.depends

    def _check_condition(self, name: str, entry: When) -> None:
        law = self._laws[entry.parameter]
        if isinstance(law, When):
            law = law.law
        if not isinstance(law, Categorical):
            raise ValueError(
                f"parameter {name!r} depends on the value of {entry.parameter!r}, which is not a Categorical"
            )
        unknown = [v for v in entry.values if v not in law.choices]
        if unknown:
            raise ValueError(
                f"parameter {name!r}: {entry.parameter!r} has no choice {unknown}; it has {list(law.choices)}"
            )

    # ------------------------------------------------------------------ mapping

    def __getitem__(self, name: str) -> Entry:
        return self._laws[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._laws)

    def __len__(self) -> int:
        return len(self._laws)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and list(self.items()) == list(other.items())

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        # A copy may speak again: a space that was used still has the joblib.hash of a new one.
        return self.__dict__ | {"_said": False}

    def __repr__(self) -> str:
        return f"SearchSpace({self._laws!r})"

    # ------------------------------------------------------------------ values

    def law(self, name: str) -> Law | Coordinate:
        """The law of a parameter, while it exists."""
        entry = self._laws[name]
        return entry.law if isinstance(entry, When) else entry

    def is_active(self, name: str, before: Mapping[str, Any]) -> bool:
        """Whether a parameter exists, given those before it."""
        entry = self._laws[name]
        if not isinstance(entry, When):
            return True
        return entry.parameter in before and before[entry.parameter] in entry.values

    def is_placeable(self, name: str, before: Mapping[str, Any]) -> bool:
        """Whether all that a parameter's law depends on is known."""
        return all(needed in before for needed in self.law(name).depends)

    def distribution(self, name: str) -> BaseDistribution:
        """What Optuna stores of a parameter: the bounds of its natural value, and its scale."""
        return self.law(name).distribution

    def places(self, name: str, value: Any, before: Mapping[str, Any]) -> tuple[float, float]:
        """Where a natural value lies in [0, 1] by the prior and by its flat counterpart.

        Parameters
        ----------
        name : str
        value : object
            Natural value.
        before : mapping
            Natural values of the parameters it depends on.

        Returns
        -------
        prior, flat : float
        """
        law = self.law(name)
        return law.pure.places(law.to_pure(value, before))

    def log_ratios(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Log of each prior's density over that of its flat counterpart, at the parameters that are there.

        Parameters
        ----------
        values : mapping
            Natural values of a configuration; names outside the space are left out.
        """
        found: dict[str, float] = {}
        for name in self:
            if name in values and self.is_placeable(name, values):
                law = self.law(name)
                pure = law.to_pure(values[name], values)
                if isinstance(law, Coordinate):
                    # What the natural bounds have moved counts as the bound it was moved from.
                    pure = min(max(pure, law.law.low), law.law.high)
                found[name] = law.pure.log_ratio(pure)
        return found

    def value(self, name: str, u: float, weight: float, before: Mapping[str, Any]) -> Any:
        """Natural value at quantile `u` of the mixture ``weight · prior + (1 - weight) · flat``.

        Parameters
        ----------
        name : str
        u, weight : float
            In [0, 1].
        before : mapping
            Natural values of the parameters it depends on.
        """
        law = self.law(name)
        return law.to_natural(law.pure.mixture_ppf(u, weight), before)

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a configuration from the priors alone."""
        drawn: dict[str, Any] = {}
        for name in self:
            if self.is_active(name, drawn):
                drawn[name] = self.value(name, float(rng.random()), 1.0, drawn)
        return drawn

    def suggest(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """A configuration for a trial.

        Under :class:`PriorSampler` the priors count; any other sampler sees bounds and scale only, which is said once
        by the logging module.

        Parameters
        ----------
        trial : optuna.Trial

        Returns
        -------
        dict of str to natural values, parameters that do not exist in this configuration left out.
        """
        study = getattr(trial, "study", None)
        if study is not None:
            self._say_once_without_priors(study)
        config: dict[str, Any] = {}
        for name in self:
            if self.is_active(name, config):
                config[name] = _suggest(trial, name, self.distribution(name))
        return config

    def _say_once_without_priors(self, study: optuna.Study) -> None:
        sampler: Any = study.sampler
        if isinstance(sampler, optuna.samplers.PartialFixedSampler):
            sampler = sampler._base_sampler
        if getattr(sampler, "sees_priors", False):
            return
        with _SAYING:
            said, self._said = self._said, True
        if not said:
            logger.warning(
                "%s sees only the bounds of the search space; for its priors use PriorSampler(%s(), space)",
                type(sampler).__name__,
                type(sampler).__name__,
            )

    def at_curvature(self, curvature: float) -> Self:
        """The same priors over the pure numbers, on a data set of another curvature.

        Parameters
        ----------
        curvature : float
            Largest Hessian eigenvalue of the loss at the initial weights.

        Raises
        ------
        ValueError
            If it is not positive and finite.
        """
        if not 0 < curvature < math.inf:
            raise ValueError(f"curvature={curvature!r} must be positive and finite")
        return type(self)({name: entry.at_curvature(curvature) for name, entry in self.items()})

    # ------------------------------------------------------------------ JSON

    def to_json(self) -> dict[str, Any]:
        """The space as plain data."""
        return {"format": _FORMAT, "parameters": [{"name": n, **_entry_to_json(e)} for n, e in self.items()]}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a space written by `to_json`; nothing in it can run code.

        Raises
        ------
        ValueError
            If it is no space, of another format, or a law in it makes no sense.
        """
        if not isinstance(data, dict) or not isinstance(data.get("parameters"), list):
            raise ValueError('a search space is a JSON object with a list "parameters"')
        if data.get("format") != _FORMAT:
            raise ValueError(
                f"search space of format {data.get('format')!r}; this inna-tune reads format {_FORMAT}"
            )
        laws: dict[str, Entry] = {}
        for item in data["parameters"]:
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise ValueError(f'each parameter is a JSON object with a "name", got {item!r}')
            name = item["name"]
            if name in laws:
                raise ValueError(f"parameter {name!r} is given twice")
            try:
                laws[name] = _entry_from_json({k: v for k, v in item.items() if k != "name"})
            except Exception as error:  # whatever is in the file
                raise ValueError(f"parameter {name!r}: {error}") from None
        try:
            return cls(laws)
        except Exception as error:
            raise ValueError(f"these laws make no space: {error}") from None

    def to_scipy(self) -> dict[str, Any]:
        """The priors for searches that know nothing of them, such as scikit-learn's ``RandomizedSearchCV``.

        Returns
        -------
        dict
            Name to a distribution of `scipy.stats` (numbers between bounds) or to a list of choices. What exists under a
            condition alone is left out: a search that knows no conditions leaves it as the estimator has it.

        Raises
        ------
        ValueError
            If a law is over a pure number of some curvature; ``SearchSpace.inna(pure=True)`` has none.

        Examples
        --------
        >>> from inna_tune.space import SearchSpace
        >>> found = SearchSpace.inna(pure=True).to_scipy()
        >>> sorted(found)
        ['damping', 'decay', 'dropout', 'friction', 'step_ratio', 'weight_decay']
        >>> found["decay"]
        ['power', 'constant', 'log', 'cosine']
        """
        from inna_tune.space.foreign import scipy_distribution

        return {
            name: scipy_distribution(name, law) for name, law in self.items() if not isinstance(law, When)
        }

    # ------------------------------------------------------------------ shipped

    @classmethod
    def inna(cls, curvature: float | None = None, *, pure: bool = False, net: bool = False) -> Self:
        """The shipped priors over INNA's settings, under the names of the estimators' parameters.

        Parameters
        ----------
        curvature : float, optional
            Largest Hessian eigenvalue λ̂ of the loss at the initial weights (``inna_tune.optim.curvature``). With it the
            priors are over the three pure numbers that are left once time is measured in 1/√λ̂: scaled friction
            α̃ = α/√λ̂ around 0.12, damping ratio ζ around 0.75, and stable-step ratio r around 2, where
            γ = γ_max(α, β, rλ̂) is the largest step that is stable at curvature rλ̂. They are narrow and the same for
            every data set, because INNA is best near its edge of stability: over 39 problems from 13 tables steps set by r
            diverged in 0.3% of the runs, where log-uniform lr, alpha and beta diverged in 25%
            (studies/edge_of_stability.py). Without a curvature the priors are wide
            laws over the natural values.
        pure : bool, default=False
            The same priors over ``friction``, ``damping`` and ``step_ratio``, the pure numbers themselves, which
            `InnaClassifier` and `InnaRegressor` take: no curvature has to be known, since each fit measures its own.
        net : bool, default=False
            Further priors, over what the net of the estimators is like: ``block`` and ``hidden_layer_sizes``. With a scale a
            tensor the automatic steps of these nets differ by less than a fifth, so that one curvature serves all.

        Returns
        -------
        SearchSpace
            Over ``alpha``, ``beta``, ``lr`` (or ``friction``, ``damping``, ``step_ratio``), ``decay``, ``decay_power`` (under
            the power law only), ``weight_decay`` and ``dropout``, and those of the net if wanted.

        Raises
        ------
        ValueError
            If pure numbers are asked for at a curvature.
        """
        laws: dict[str, Entry] = {}
        if pure:
            if curvature is not None:
                raise ValueError(
                    f"curvature={curvature!r}: pure numbers are the same at every curvature; give pure=True alone"
                )
            laws |= _PURE_LAWS
        elif curvature is None:
            laws["alpha"] = LogNormal(0.2, 1.5, low=0.005, high=5.0)
            laws["beta"] = LogNormal(0.2, 1.0, low=0.01, high=5.0)
            laws["lr"] = LogUniform(1e-3, 1.0)
        else:
            laws |= _stable_settings(curvature)
        laws["decay"] = Categorical(("power", "constant", "log", "cosine"), (0.2, 0.25, 0.1, 0.45))
        laws["decay_power"] = When("decay", ("power",), Uniform(0.05, 1.0))
        laws["weight_decay"] = LogNormal(1e-4, 2.0, low=1e-7, high=1e-1)
        laws["dropout"] = Beta(1.0, 3.0, low=0.0, high=0.6)
        return cls(laws | _NET_LAWS if net else laws)


def _suggest(trial: optuna.trial.BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def _stable_settings(curvature: float) -> dict[str, Entry]:
    """The priors over α̃, ζ and r, with natural bounds that hold every value their bounds can reach."""
    friction, damping, ratio = _PURE_LAWS.values()
    root = math.sqrt(curvature)
    beta_low, beta_high = (2 * damping.low - friction.high) / root, (2 * damping.high - friction.low) / root
    corners = np.meshgrid(
        *(np.geomspace(law.low, law.high, 15) for law in (friction, damping, ratio)), indexing="ij"
    )
    steps = settings_from_curvature(
        curvature, scaled_alpha=corners[0], damping_ratio=corners[1], stable_step_ratio=corners[2]
    ).lr
    return {
        "alpha": ScaledFriction(friction, curvature, friction.low * root, friction.high * root),
        "beta": DampingRatio(damping, curvature, beta_low, beta_high),
        "lr": StableStep(ratio, curvature, float(steps.min()), float(steps.max())),
    }


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, When):
        return {"when": entry.parameter, "values": list(entry.values), **_entry_to_json(entry.law)}
    if isinstance(entry, Coordinate):
        return {
            "coordinate": type(entry).__name__,
            "law": entry.law.to_json(),
            "curvature": entry.curvature,
            "low": entry.low,
            "high": entry.high,
        }
    return entry.to_json()


def _entry_from_json(data: dict[str, Any]) -> Entry:
    if "when" in data:
        inner = _entry_from_json({k: v for k, v in data.items() if k not in {"when", "values"}})
        values = data.get("values")
        if not isinstance(values, list) or not isinstance(data["when"], str) or isinstance(inner, When):
            raise ValueError('"when" names a parameter and comes with a list "values"')
        return When(data["when"], tuple(values), inner)
    if "coordinate" in data:
        kind = COORDINATES.get(data["coordinate"])
        if kind is None:
            raise ValueError(f"unknown coordinate {data['coordinate']!r}; known are {', '.join(COORDINATES)}")
        coordinate: Coordinate = read_fields(kind, data, "coordinate")
        return coordinate
    return Law.from_json(data)
