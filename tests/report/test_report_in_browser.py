"""The report in Chromium, at the widths of a desk and of a phone, in light and dark."""

import pytest
from sklearn.datasets import load_diabetes, load_wine

from inna_tune import InnaClassifier, InnaRegressor
from inna_tune.jobs.tuning import tune
from inna_tune.report import write_report
from inna_tune.tables.problem import make_problem
from tests.browser import Browser, overflow
from tests.plots.studies import make_study
from tests.report.test_report import hostile_study

SMALL = {"hidden_layer_sizes": (8,), "n_members": 1, "max_epochs": 16}


def tuned(load, estimator):
    X, y = load(return_X_y=True, as_frame=True)
    problem = make_problem(X.assign(target=y), "target")
    return tune(problem, n_trials=4, storage=None, study_name=None, estimator=estimator).search.study_


STUDIES = {
    "multiclass": lambda: tuned(load_wine, InnaClassifier(**SMALL)),
    "regression": lambda: tuned(load_diabetes, InnaRegressor(**SMALL)),
    "one": lambda: make_study(1),
    "thousands running": lambda: make_study(2000, running=4),
    "hostile": hostile_study,
}


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started


@pytest.mark.parametrize("kind", STUDIES)
def test_a_report_in_the_browser(kind, browser, tmp_path):
    path = write_report(STUDIES[kind](), tmp_path / "report.html")
    for width, dark in ((1280, False), (390, True)):
        browser.open(path.as_uri(), width=width, dark=dark)
        assert browser.errors == []
        assert overflow(browser) == []
        assert browser.evaluate("window.hacked") is None
        # The page's own file, and what stands in it.
        assert all(r == path.as_uri() or r.startswith("data:") for r in browser.requests), browser.requests
        pictures = browser.evaluate(
            """[...document.querySelectorAll('svg.plot, img')].map(e => ({
                  words: e.getAttribute('aria-label') || e.getAttribute('alt') || '',
                  width: e.getBoundingClientRect().width, height: e.getBoundingClientRect().height}))"""
        )
        assert len(pictures) >= 4
        for picture in pictures:
            assert len(picture["words"].split()) > 5
            assert picture["width"] > 200
            assert picture["height"] > 80
        background, ink = browser.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        assert (brightness(background) < brightness(ink)) == dark
        colours = text_colours(browser)
        assert colours
        for colour in colours:
            assert abs(brightness(colour) - brightness(background)) > 80, (colour, background)


def brightness(colour):
    return sum(float(part.strip(" rgba()")) for part in colour.split(",")[:3]) / 3


def text_colours(browser):
    """Colours of the texts in the pictures."""
    return browser.evaluate(
        "[...new Set([...document.querySelectorAll('svg.plot text')].map(e => getComputedStyle(e).fill))]"
    )
