"""Settings of the estimator as text, such as ``max_epochs=30``: from the command line to the notes of a study."""

import ast
import difflib
import json
import warnings
from collections.abc import Collection, Sequence
from typing import Any

from inna_tune.estimators import InnaClassifier, InnaRegressor, TableEncoder
from inna_tune.estimators.base import InnaEstimator

_OPTION = "optimizer__"  # options of an optimizer are named by the optimizer


def make_estimator(
    task: str, settings: Sequence[str] = (), *, compares_optimizers: bool = False
) -> InnaEstimator:
    """The estimator of a task, with settings that are given as text.

    Parameters
    ----------
    task : {"binary", "multiclass", "regression"}
    settings : sequence of str
        ``NAME=VALUE`` each; names as ``set_params`` takes them, those of the encoder too (``encoder__numeric=quantile``).
        Values are literals of Python or JSON, or else texts.
    compares_optimizers : bool
        Whether the optimizers are what is compared, so that none can be set.

    Returns
    -------
    InnaClassifier or InnaRegressor
        With default values for all else.

    Raises
    ------
    ValueError
        If the estimator has no such parameter, or its value makes no sense; the message names both and the remedy.
    """
    estimator = InnaRegressor() if task == "regression" else InnaClassifier()
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"the setting {setting!r} must be NAME=VALUE, such as max_epochs=30")
        if name in given:
            raise ValueError(f"the setting {name} is given twice; give one value")
        given[name] = _read(text)
    of_encoder = [name for name in given if name.startswith("encoder__")]
    if of_encoder and "encoder" in given:
        raise ValueError(
            f"the setting encoder leaves nothing for {of_encoder[0]} to set; give one or the other"
        )
    if of_encoder:
        estimator.set_params(encoder=TableEncoder())
    _check_names(given, estimator.get_params(), compares_optimizers)
    estimator.set_params(**given)
    estimator._check_parameters()
    estimator._new_encoder()._check_parameters()
    return estimator


def _read(text: str) -> Any:
    """A literal of Python, or of JSON; what is neither is a text. Nothing is run."""
    text = text.strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what looks like a number or an escape and is none
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _check_names(given: Collection[str], known: Collection[str], compares_optimizers: bool) -> None:
    for name in given:
        if name == "random_state":
            raise ValueError("the setting random_state is what the seed sets; give seed=, or --seed")
        if compares_optimizers and (name.startswith(_OPTION) or name in ("optimizer", "optimizer_params")):
            raise ValueError(
                f"the setting {name} is of the optimizers, which are compared; name them by optimizers=, or --optimizers"
            )
        if name not in known and not (name.startswith(_OPTION) and name != _OPTION):
            of_encoder = {f"encoder__{each}" for each in TableEncoder().get_params()}
            others = sorted((set(known) | of_encoder) - {"random_state"})
            near = difflib.get_close_matches(name, others, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(others)}"
            raise ValueError(f"the estimator has no setting {name!r}; {hint}")
