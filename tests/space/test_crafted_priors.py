"""Prior files that nobody wrote by this program: refused in one line, whatever is in them."""

import copy
import json

import optuna
import pytest

from inna_tune.space import Prior, learn
from inna_tune.space.prior import MOST_FIRST, PriorFileError
from inna_tune.space.space import SearchSpace
from inna_tune.study.beginning import try_first
from tests.plots.studies import make_study

SHIPPED = Prior.shipped("classification")


@pytest.fixture
def content(tmp_path):
    SHIPPED.save(tmp_path / "prior.json")
    return json.loads((tmp_path / "prior.json").read_text())


def paths(tree, here=()):
    """Places of all numbers of a tree."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from paths(value, (*here, key))
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield here


@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero):RuntimeWarning")
@pytest.mark.parametrize("value", [10**400, 1e308, 5e-324, [[]]])
def test_a_number_that_overflows_is_refused_or_does_no_harm(value, content, tmp_path):
    file = tmp_path / "crafted.json"
    refused = 0
    for path in list(paths({k: v for k, v in content.items() if k != "provenance"})):
        changed = copy.deepcopy(content)
        *above, last = path
        place = changed
        for step in above:
            place = place[step]
        place[last] = value
        file.write_text(json.dumps(changed))
        try:
            found = Prior.load(file)
        except PriorFileError:
            refused += 1
            continue
        found.rows()
    assert refused


def test_a_space_in_a_study_that_overflows_is_no_space():
    plain = SearchSpace.inna(curvature=2.0).to_json()
    plain["parameters"][0]["curvature"] = 10**400
    with pytest.raises(ValueError, match="alpha"):
        SearchSpace.from_json(plain)


def test_a_portfolio_without_an_end_is_refused(content, tmp_path):
    content["portfolio"] = [content["portfolio"][0]] * 20_000
    (tmp_path / "long.json").write_text(json.dumps(content))
    with pytest.raises(PriorFileError, match="20000 settings is more than the 500"):
        Prior.load(tmp_path / "long.json")
    with pytest.raises(ValueError, match="n_portfolio=501"):
        learn([make_study(3, failures=False)], n_portfolio=MOST_FIRST + 1)


def test_settings_are_queued_by_one_look_at_the_trials():
    class Counting(optuna.storages.InMemoryStorage):
        looks = 0

        def get_all_trials(self, *args, **kwargs):
            self.looks += 1
            return super().get_all_trials(*args, **kwargs)

    storage = Counting()
    study = optuna.create_study(storage=storage)
    settings = [{"x": 0.001 * k, "kind": "a"} for k in range(1, 301)]
    try_first(study, settings[:200])
    try_first(study, [*settings, {"x": 0.001 * (1 + 1e-7), "kind": "a"}, {"x": 1, "kind": "a"}, {"x": 0.001}])
    assert storage.looks < 5
    queued = [trial.system_attrs["fixed_params"] for trial in study.get_trials(deepcopy=False)]
    assert queued == [*settings, {"x": 1, "kind": "a"}, {"x": 0.001}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp500"])
def test_a_prior_in_another_encoding_is_told_so(encoding, content, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(content), encoding=encoding)
    with pytest.raises(PriorFileError, match="is no prior file"):
        Prior.load(tmp_path / "p.json")
