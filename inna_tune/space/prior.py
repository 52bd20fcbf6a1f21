"""A prior: a search space with settings to try first and where both come from, and the file that holds it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self

import numpy as np

from inna_tune.files import replacing
from inna_tune.space.coordinates import Coordinate
from inna_tune.space.discrete import Categorical
from inna_tune.space.space import SearchSpace, When
from inna_tune.strangers_json import loads

PRIOR_FORMAT = 1
MOST_FIRST = 500  # settings of a portfolio: each is written into a study before its first trial
TASKS = ("classification", "regression")


class PriorFileError(ValueError):
    """A file is no prior, or one of another format."""


@dataclass(frozen=True)
class Prior:
    """A search space learned from studies, with settings to try first and where both come from.

    Parameters
    ----------
    space : SearchSpace
        Its coordinates stand at curvature 1; `at` moves them to a data set's own.
    portfolio : sequence of dict
        Configurations, pure numbers where the space has coordinates.
    provenance : dict
        Studies, their data, dates, versions: plain values.

    Raises
    ------
    ValueError
        If more than 500 settings are to be tried first.
    """

    space: SearchSpace
    portfolio: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.portfolio) > MOST_FIRST:
            raise ValueError(
                f"a portfolio of {len(self.portfolio)} settings is more than the {MOST_FIRST} that can be tried first"
            )

    def at(self, curvature: float) -> tuple[SearchSpace, list[dict[str, Any]]]:
        """Space and portfolio in the natural values of a data set.

        Parameters
        ----------
        curvature : float
            Largest Hessian eigenvalue of the loss at the initial weights.
        """
        space = self.space.at_curvature(curvature)
        return space, [_to_natural(space, setting) for setting in self.portfolio]

    def rows(self) -> list[tuple[str, str, tuple[str, str, str] | None, str]]:
        """Each parameter in words: its name, its pure number, 5%, 50% and 95% quantiles, and its choices."""
        found: list[tuple[str, str, tuple[str, str, str] | None, str]] = []
        for name, entry in self.space.items():
            law = self.space.law(name)
            number = type(law).__name__ if isinstance(law, Coordinate) else ""
            if isinstance(law, Categorical):
                shares = ", ".join(
                    f"{c} {p:.0%}" for c, p in zip(law.choices, law.probabilities, strict=True)
                )
                found.append((name, number, None, shares))
                continue
            low, middle, high = (f"{law.pure.ppf(q):.3g}" for q in (0.05, 0.5, 0.95))
            found.append((name, number, (low, middle, high), entry.words if isinstance(entry, When) else ""))
        return found

    def save(self, path: Any) -> None:
        """Write the prior as JSON; an existing file is replaced."""
        content = {
            "inna_tune_prior": PRIOR_FORMAT,
            "space": self.space.to_json(),
            "portfolio": [dict(p) for p in self.portfolio],
            "provenance": dict(self.provenance),
        }
        text = json.dumps(content, indent=1, allow_nan=False, default=_of_numpy)
        with replacing(path) as written:
            written.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def shipped(cls, task: str) -> Self:
        """The prior that comes with the package: learned from flat studies on public tables (studies/tabular_inna).

        Parameters
        ----------
        task : {"classification", "regression"}
            Classes and values ask for other settings: a prior learned from the tables of its own task put .29 of its draws
            within 5% of the best known of a table left out, one from all tables .24, flat laws .17.

        Raises
        ------
        ValueError
            If the task is neither.
        """
        if task not in TASKS:
            raise ValueError(f"task={task!r} must be one of {', '.join(TASKS)}")
        return cls.load(resources.files("inna_tune.space") / f"{task}.json")

    @classmethod
    def load(cls, path: Any) -> Self:
        """Read a prior that `save` wrote; nothing in it can run code.

        Raises
        ------
        PriorFileError
            If the file is no prior, of another format, or holds what makes no space.
        OSError
            If it cannot be read.
        """
        try:
            source = path if isinstance(path, Traversable) else Path(path)
            content = loads(source.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"There is no prior file {path}; make one with `inna-tune prior learn STUDY -o FILE`"
            ) from None
        except OSError as error:
            raise OSError(f"The prior file {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise PriorFileError(f"{path} is no prior file: {error}") from None
        if not isinstance(content, dict) or "inna_tune_prior" not in content:
            raise PriorFileError(
                f"{path} is no prior file; make one with `inna-tune prior learn STUDY -o FILE`"
            )
        if content["inna_tune_prior"] != PRIOR_FORMAT:
            raise PriorFileError(
                f"{path} is of format {content['inna_tune_prior']!r}; this inna-tune reads format {PRIOR_FORMAT}"
            )
        try:
            space = SearchSpace.from_json(content.get("space"))
            portfolio = content.get("portfolio", [])
            provenance = content.get("provenance", {})
            if not isinstance(portfolio, list) or not all(isinstance(p, dict) for p in portfolio):
                raise ValueError('"portfolio" must be a list of settings')
            if not isinstance(provenance, dict):
                raise ValueError('"provenance" must be an object')
            found = cls(space, tuple(portfolio), provenance)
            for setting in found.at(1.0)[1]:
                _check_setting(space, setting)
        except Exception as error:  # whatever is in the file
            raise PriorFileError(f"{path}: {error}") from None
        return found


def _of_numpy(value: Any) -> Any:
    """A scalar or array of numpy's as JSON has it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} can't be kept in a file: give numbers, text, lists or dicts")


def _to_natural(space: SearchSpace, pure: Mapping[str, Any]) -> dict[str, Any]:
    natural: dict[str, Any] = {}
    for name in space:
        if name in pure:
            natural[name] = space.law(name).to_natural(pure[name], natural)
    return natural


def _check_setting(space: SearchSpace, setting: Mapping[str, Any]) -> None:
    for name in space:
        if space.is_active(name, setting):
            if name not in setting:
                raise ValueError(f"a setting of the portfolio lacks {name!r}")
            distribution = space.distribution(name)
            if not distribution._contains(distribution.to_internal_repr(setting[name])):
                raise ValueError(f"portfolio: {name}={setting[name]!r} lies outside the space")
