"""Optuna's own contract for samplers, on PriorSampler over every base sampler that we name."""

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase

from inna_tune.space import LogUniform, PriorSampler, SearchSpace, Uniform

# The contract's own parameters are not in this space, or are with other bounds: they must pass unchanged.
SPACE = SearchSpace({"lr": LogUniform(0.01, 1.0), "alpha": Uniform(0.0, 2.0)})


class TestOverTPE(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PriorSampler(TPESampler(n_startup_trials=0), SPACE)


class TestOverRandom(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PriorSampler(RandomSampler(), SPACE)


class TestOverCmaEs(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PriorSampler(CmaEsSampler(n_startup_trials=0), SPACE)


@pytest.mark.slow
class TestOverGP(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PriorSampler(GPSampler(n_startup_trials=0, deterministic_objective=False), SPACE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
class TestOverQMC(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: PriorSampler(QMCSampler(), SPACE)
