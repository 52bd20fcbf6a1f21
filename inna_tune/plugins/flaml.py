"""INNA as a learner of FLAML's: ``AutoML().add_learner("inna", InnaLearner)``."""

import time
from typing import Any, ClassVar

from flaml import tune
from flaml.automl.model import BaseEstimator
from optuna.distributions import FloatDistribution
from sklearn.dummy import DummyClassifier, DummyRegressor

from inna_tune.estimators import DivergenceError, InnaClassifier, InnaRegressor
from inna_tune.plugins.ranges import ranges
from inna_tune.visible import get_logger

logger = get_logger(__name__)

_TASKS = ("binary", "multiclass", "classification", "regression")

# A fit is asked for even where no time is left; it ends after its first batch then.
_LEAST_SECONDS = 1e-3
# Of a table of unknown size.
_ROWS = 10_000


class InnaLearner(BaseEstimator):  # type: ignore[misc]
    """A net trained by INNA, as FLAML's AutoML trains and tunes its learners.

    ``AutoML().add_learner("inna", InnaLearner)`` makes it known, ``fit(…, estimator_list=["inna", "lgbm"])`` uses it. FLAML
    searches over ``step_ratio``, ``friction`` and ``damping``, which mean the same on every table, ``dropout``,
    ``weight_decay``, and ``max_epochs``, with which it begins cheaply. Any other parameter of InnaClassifier or InnaRegressor
    goes in by FLAML's ``custom_hp``. What is left of ``time_budget`` bounds each fit, and sample weights count.

    A trial trains as many nets as the estimators do by default, up to eight on few rows;
    ``custom_hp={"inna": {"n_members": {"domain": …}}}`` decides otherwise.

    Parameters
    ----------
    task : str or flaml.automl.task.task.Task
        "binary", "multiclass", "classification" or "regression".
    **config
        Parameters of InnaClassifier or InnaRegressor, and FLAML's ``n_jobs``.

    Raises
    ------
    ValueError
        If the task is another one; FLAML asks for the search space, where it is raised too, before anything is trained.
    """

    # FLAML writes what a fit ended with back under this name, so that the last fit, which has no limit, is as long.
    ITER_HP: ClassVar[str] = "max_epochs"

    def __init__(self, task: Any = "binary", **config: Any) -> None:
        _check_task(task)
        super().__init__(task, **config)
        self.estimator_class = _kind(self._task)

    @classmethod
    def search_space(cls, data_size: Any = None, task: Any = "binary", **params: Any) -> dict[str, Any]:
        """What FLAML tunes, in its terms.

        Parameters
        ----------
        data_size : tuple of int
            Rows and columns; the most epochs are those of a fit on so many rows.
        task : str or Task
        **params
            What FLAML says of other tasks.

        Raises
        ------
        ValueError
            If the task is none that INNA can do.
        """
        _check_task(task)
        n_rows = int(data_size[0]) if data_size else _ROWS
        found = {
            name: {"domain": _domain(entry.distribution), "init_value": entry.default}
            for name, entry in ranges(_kind(task), n_rows=n_rows).items()
        }
        most = _kind(task)()._plan_for(n_rows).max_epochs
        found["max_epochs"] = {
            "domain": tune.lograndint(lower=5, upper=most + 1),
            "init_value": 10,
            "low_cost_init_value": 5,
        }
        return found

    @classmethod
    def cost_relative2lgbm(cls) -> float:
        """Guess of how much longer than LightGBM a cheap fit takes; FLAML corrects it by what it sees."""
        return 50

    def config2params(self, config: dict[str, Any]) -> dict[str, Any]:
        """FLAML's configuration as parameters of the estimator."""
        params: dict[str, Any] = {"random_state": 0} | super().config2params(config)
        # FLAML counts with floats where a sampled whole number is one.
        for name in {"max_epochs", "n_jobs"} & params.keys():
            params[name] = int(params[name])
        return params

    def fit(
        self,
        X_train: Any,
        y_train: Any,
        budget: float | None = None,
        free_mem_ratio: float = 0,
        **kwargs: Any,
    ) -> float:
        """Train within a budget.

        Parameters
        ----------
        X_train : array or DataFrame of shape [n_samples, n_features]
        y_train : array of shape [n_samples]
        budget : float, optional
            Seconds.
        free_mem_ratio : float
            Means nothing here: what training takes is allocated before it begins.
        **kwargs
            ``sample_weight``; FLAML's own words.

        Returns
        -------
        float
            Seconds it took.
        """
        began = time.time()
        weight = kwargs.get("sample_weight")
        settings = dict(self.params)
        if budget is not None:
            settings["max_time"] = max(budget, _LEAST_SECONDS)
        X_train = self._preprocess(X_train)
        try:
            model = self.estimator_class(**settings).fit(X_train, y_train, sample_weight=weight)
        except DivergenceError as error:
            # As FLAML does where a fit ran out of memory or time: a trial with a bad score, and the search goes on.
            logger.warning("%s", error)
            model = DummyClassifier() if self._task.is_classification() else DummyRegressor()
            model.fit(X_train, y_train, sample_weight=weight)
        else:
            if "time" in set(model.history_["stopped"]):
                self.params["max_epochs"] = int(model.n_iter_)
        self._model = model
        return time.time() - began


def _check_task(task: Any) -> None:
    name = getattr(task, "name", task)
    if name not in _TASKS:
        raise ValueError(
            f"task={name!r} is none that InnaLearner can do; it does {', '.join(_TASKS)}: leave it out of estimator_list"
        )


def _kind(task: Any) -> type[InnaClassifier] | type[InnaRegressor]:
    return InnaRegressor if getattr(task, "name", task) == "regression" else InnaClassifier


def _domain(distribution: FloatDistribution) -> Any:
    draw = tune.loguniform if distribution.log else tune.uniform
    return draw(lower=distribution.low, upper=distribution.high)
