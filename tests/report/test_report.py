"""The report as a file: whole, safe whoever wrote the study, and of any study."""

import html.parser
import os
import re

import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure
from optuna.trial import TrialState, create_trial

from inna_tune import plots
from inna_tune.records.attributes import ALLOWED_MISMATCH, FINGERPRINT, MODEL
from inna_tune.records.record import StudyRecord
from inna_tune.report import page as report_page
from inna_tune.report import render_report, svg, write_report
from tests.plots.studies import held_out_of, make_study

optuna.logging.set_verbosity(optuna.logging.WARNING)

WILD = "</title></svg><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\"'`{{7*7}}]]>&amp;$x_"
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt" version="1.1"/>'
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Elements, attributes and texts of a page; tags must close in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def check(text):
    """What holds for every report; return it parsed."""
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base", "img", "foreignobject"}
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("href", "xlink:href", "src"):
            target = attributes.get(name)
            if target is not None:
                if target.startswith("#"):
                    assert target[1:] in ids
                else:
                    assert re.match(
                        r"data:(image/png;base64,|,$)|http://127\.0\.0\.1:8080/dashboard/", target
                    ), target
    pictures = [a for tag, a in page.elements if tag == "svg"]
    assert all(a["role"] == "img" and len(a["aria-label"].split()) > 5 for a in pictures)
    for url in re.findall(r"url\(([^)]*)\)", text):
        assert url.removeprefix("#") in ids, url
    return page


@pytest.fixture(scope="module")
def small():
    """A study of a few trials, and its report."""
    study = make_study(5, failures=False)
    return study, render_report(study)


def test_everything_that_is_known_is_in_it():
    study = make_study(60, running=1)
    page = check(render_report(study))
    words = page.words
    for part in (
        "1000 rows, 2 columns, target 'label', binary",
        "1 trial is running",
        "effective step",
        "Best score so far",
        "Learning curves of the best 10",
        "Alpha and beta",
        "Importance of the hyper-parameters",
        "Decay of the step size",
        "Rungs and pruning",
        "Confusion matrix",
        "Calibration",
        "ValueError: the solver said <no> & stopped",
        "pruned at epoch 12",
        "load('model.inna')",
        "inna-tune predict model.inna",
        "StratifiedKFold(n_splits=5",
        "torch 2.13.0",
        "age (float64)",
        "scaled friction",
        "dropout",
    ):
        assert part.lower() in words.lower(), part
    best = max((t for t in study.trials if t.state == TrialState.COMPLETE), key=lambda t: t.value)
    assert f"trial {best.number}; lower is better" in words
    assert f"{-best.value:.5g}" in words
    # Pictures: progress 2, plane and importance 2, one a parameter, training 2, held-out rows 3.
    assert sum(tag == "svg" for tag, _ in page.elements) == 9 + 7


def test_a_regression_shows_residuals():
    study = make_study(30, task="regression")
    study.set_user_attr("inna_tune:misleading_priors", {"beta": -2.0})
    words = check(render_report(study)).words
    assert "its weight was lowered: beta (7.39 times)" in words
    assert "Residuals of the held-out rows" in words
    assert "Confusion" not in words
    assert "RMSE" in words


@pytest.mark.parametrize(("number", "running"), [(0, 0), (0, 3), (1, 0), (2000, 3)])
def test_studies_of_any_size_running_or_finished(number, running):
    study = make_study(number, running=running, held_out=number > 0)
    text = render_report(study)
    words = check(text).words
    assert f"{number + running}" in words
    assert ("3 trials are running" in words) == (running == 3)
    assert len(text) < 2_500_000
    if number == 0:
        assert "No trial has a score yet" in words


def test_an_interrupted_study_without_a_score_has_a_report():
    study = make_study(0)
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"reason": "ValueError: no"}))
    study.add_trial(create_trial(state=TrialState.PRUNED))
    words = check(render_report(study)).words
    assert "ValueError: no" in words
    assert "no reason was recorded" in words


def test_a_plain_study_of_optuna_has_a_report():
    study = optuna.create_study(direction="minimize")
    study.optimize(lambda t: t.suggest_float("x", -1, 1) ** 2 + t.suggest_int("n", 1, 3), n_trials=15)
    words = check(render_report(study)).words
    assert "not begun by inna-tune" in words
    with pytest.raises(ValueError, match="2 objectives"):
        render_report(optuna.create_study(directions=["minimize", "minimize"]))
    with pytest.raises(TypeError, match=r"optuna\.Study"):
        render_report("x")


def hostile_study():
    """Whatever a stranger can write into a study, written by one."""
    study = optuna.create_study(direction="maximize", study_name=WILD)

    def objective(trial):
        trial.suggest_categorical(WILD, [WILD, "b"])
        trial.suggest_categorical("decay", [WILD, "power"])
        trial.suggest_float("lr", 0.1, 1)
        trial.set_user_attr("reason", WILD + "\x00\x08\ud800")
        trial.set_user_attr("epochs", WILD)
        trial.set_user_attr("seconds", "NaN")
        trial.set_user_attr("scores", [WILD])
        trial.report(0.5, 1)
        if trial.number % 3 == 0:
            raise ValueError(WILD)
        return trial.suggest_float("alpha", 0.1, 1) * trial.suggest_float("beta", 0.1, 1)

    study.optimize(objective, n_trials=20, catch=ValueError)
    study.set_user_attr(
        FINGERPRINT,
        {
            "columns": [[WILD, WILD, "0"], [1, 2], WILD, None],
            "rows": WILD,
            "target": WILD,
            "task": WILD,
            "cv": WILD,
            "metric": WILD,
            "space": {WILD: WILD},
            "versions": {WILD: WILD},
            "content": {WILD: [WILD]},
            "estimator": {
                "class": WILD,
                "parameters": {WILD: WILD, "max_epochs": WILD, "x": {"object": [WILD], "settings": WILD}},
            },
        },
    )
    study.set_user_attr(MODEL, WILD)
    study.set_user_attr(ALLOWED_MISMATCH, [WILD])
    found = held_out_of("binary").to_json()
    found |= {"classes": (WILD, "yes"), "scores": {WILD: {WILD: 1.0}, "tuned": {WILD: 0.5}}}
    found["importances"] |= {"best": [{"column": WILD + "\x00\u202e", "change": 1.0, "error": 0.1}] * 3}
    study.set_user_attr("inna_tune:held_out", found)
    study.set_user_attr("inna_tune:curvature", WILD)
    study.set_user_attr("inna_tune:seed", [WILD])
    study.set_user_attr("inna_tune:misleading_priors", {WILD: -2.0, "x": WILD, "y": -1e9})
    return study


def test_what_strangers_wrote_is_text_and_nothing_else():
    text = render_report(hostile_study())
    page = check(text)
    assert WILD in "".join(page.text)  # its {{7*7}} too, which nobody evaluated
    assert "<script" not in text
    assert "<img" not in text
    assert "\x00" not in text


@pytest.mark.parametrize("thing", [None, 3, "text", [], [[]], {"columns": 3}, {"versions": []}, {"space": 3}])
def test_attributes_of_the_wrong_shape_count_as_missing(thing, monkeypatch):
    # Figures are made of what the study says, and neither laid out nor written, which takes long and knows nothing of it.
    monkeypatch.setattr(svg, "_lay_out", lambda figure: None)
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: file.write(EMPTY))
    study = make_study(3)
    for name in (
        FINGERPRINT,
        MODEL,
        ALLOWED_MISMATCH,
        "inna_tune:held_out",
        "inna_tune:curvature",
        "inna_tune:misleading_priors",
    ):
        study.set_user_attr(name, thing)
    check(render_report(study))


def test_a_report_is_the_same_bytes_each_time_but_for_the_hour(small):
    study, page = small
    without_hour = [re.sub(r"Written [^.]*?by", "", text) for text in (page, render_report(study))]
    assert without_hour[0] == without_hour[1]


def test_a_picture_is_drawn_once_and_is_the_one_that_saving_alone_would_make(monkeypatch):
    record = StudyRecord(make_study(20))
    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: (drawn.append(1), draw(figure, renderer))[1])
    # The first has a bar of colours beside it, whose place is the layout's work too.
    for plot in (plots.alpha_beta_plane, plots.best_so_far):
        drawn.clear()
        found = svg.picture(lambda plot=plot: plot(record), "key")
        assert len(drawn) == 1
        with monkeypatch.context() as without:
            without.setattr(svg, "_lay_out", lambda figure: None)
            assert svg.picture(lambda plot=plot: plot(record), "key") == found


def test_a_file_is_replaced_in_one_move_or_left_as_it_was(small, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("before")
    with pytest.raises(TypeError):
        write_report(None, path)
    assert path.read_text() == "before"
    with monkeypatch.context() as drawn:
        drawn.setattr(report_page, "render_report", lambda study: small[1])
        assert write_report(small[0], path) == path
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert os.listdir(tmp_path) == ["report.html"]
    # Without drawing first.
    monkeypatch.setattr(report_page, "render_report", lambda study: pytest.fail("it was drawn"))
    with pytest.raises(OSError, match="nowhere"):
        write_report(small[0], tmp_path / "nowhere" / "report.html")


def test_scores_of_folds_have_their_deviation(small):
    study, page = small
    spread = np.std(study.trials[0].user_attrs["scores"])
    assert f"±{spread:.2g}" in check(page).words
