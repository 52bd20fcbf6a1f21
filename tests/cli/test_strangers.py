"""Names, labels and files of strangers: shown as they are, obeyed by nobody."""

import contextlib
import html
import io
import json
import logging
import re
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import optuna
import pandas as pd
import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from rich.table import Table
from typer.testing import CliRunner

from inna_tune.cli import app
from inna_tune.cli.console import Door, one_line_errors, say
from inna_tune.tables.predicting import spreadsheet_warning
from inna_tune.visible import get_logger, is_unseen, visible, visible_json
from tests.plots.studies import make_study
from tests.test_cli import SMALL

optuna.logging.set_verbosity(optuna.logging.WARNING)

FRAGMENTS = [
    *("[/red]", "[red]", "[link=http://evil]", "[/]", "[[", "\\[", ":smile:", "{0}", "%s", "$x_"),
    *("\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\r", "\n", "\t", "\x08", "\x0b", "\x7f", "\x85"),
    *(
        "\u202e",
        "\u2066",
        "\u200b",
        "\u2028",
        "\ufeff",
        "\U000e0041",
        "é",
        "表",
        "👩\u200d💻",
        "=cmd|'/c'!A1",
    ),
    *("<script>", "&amp;", "'", '"', ";", "--help", "-o", "$(id)", "a"),
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), st.characters(codec="utf-8", exclude_characters="\0")),
    min_size=1,
    max_size=4,
).map("".join)
WORST = "".join(FRAGMENTS[:20])
TURNED = "[/red]x\x1b[31m\u202e\x9b"
# A file is named by bytes, of which some are no UTF-8.
FILES = st.one_of(TEXTS, st.just("\udcff\udc80")).map(lambda text: text.replace("/", "_")[:40])


def a_few(n):
    return settings(max_examples=n, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def run(folder, *words):
    """A command, whatever comes of it: what it printed."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)
    assert done.exit_code in (0, 2), (words, done.output)
    assert not [c for c in done.output if is_unseen(c, lines=True) or c == "\t"], (words, done.output)
    if done.exit_code == 2 and not done.stderr.startswith("Usage"):
        assert done.stderr.count("\n") == 1, done.stderr
    return done


def shown(text):
    """As an error says it, in one line."""
    return visible(" ".join(text.split()))


@a_few(3)
@given(TEXTS, TEXTS)
@example(WORST, TURNED)
def test_studies_of_strangers_are_listed_shown_moved_and_learned_from(name, label):
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(1, name=name, failures=False, storage=f"sqlite:///{folder}/inna_tune.db")
        fingerprint = study.user_attrs["inna_tune:fingerprint"]
        study.set_user_attr(
            "inna_tune:fingerprint", fingerprint | {"metric": label, "target": label, "task": label}
        )
        study.set_user_attr("inna_tune:misleading_priors", {label: -3.0})
        trial = study.ask()
        trial.suggest_categorical(label, [label, "other"])
        study.tell(trial, 1.0)

        assert json.loads(run(folder, "studies", "--json").stdout)["studies"][0]["name"] == name
        if len(visible(name)) < 40:
            assert visible(name) in run(folder, "studies").stdout
        said = run(folder, "show", "--", name).stdout
        assert f"Study {visible(name)}: 2 complete" in said
        assert visible(label) in said.replace("\n", "")
        run(folder, "show", "--json", "--", name)
        assert (
            f"Wrote study {visible(name)} with"
            in run(folder, "studies", "export", "-o", "e.db", "--", name).stdout
        )
        other = ("--storage", "sqlite:///other.db")
        assert (
            f"Took in study {visible(label)} with"
            in run(folder, "studies", "import", "e.db", f"--as={label}", *other).stdout
        )
        assert shown(label) in run(folder, "show", *other, "--", name + "?").stderr
        run(folder, "prior", "learn", "-o", "p.json", "--", name)


@a_few(6)
@given(FILES, TEXTS)
@example(WORST, TURNED)
@example("\udcff", "a")
def test_files_of_strangers_are_named_as_they_are(name, text):
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder, "there")
        content.mkdir()
        try:
            Path(folder, "there", name).write_text(text, encoding="utf-8")
        except OSError:
            return
        gone, there = f"gone/{name}", f"there/{name}"
        for path in (gone, there):
            for words in (
                ("columns",),
                ("fit", "--target=a"),
                ("prior", "show"),
                ("studies", "import"),
                ("predict", "-o", "x.csv", "m.inna"),
            ):
                done = run(folder, *words, "--", path)
                assert done.exit_code in (0, 2)
            for words in (
                ("predict", "-o", "x.csv", "--", path, "t.csv"),
                ("report", f"-o{path}", "--", text),
            ):
                assert run(folder, *words).exit_code == 2
        assert shown(name) in run(folder, "columns", "--", gone + ".csv").stderr
        run(folder, text)
        run(folder, "columns", "a", text)
        run(folder, f"--{text}")
        run(folder, "show", text, "--storage", f"sqlite:///{there}")


def table(target, column, label):
    rng = np.random.default_rng(0)
    first = rng.choice(["no", label], 60)
    return pd.DataFrame(
        {target: first, column: np.where(rng.random(60) < 0.8, first, "no"), "n": rng.normal(size=60)}
    )


@a_few(1)
@given(TEXTS, TEXTS, TEXTS)
@example(WORST, TURNED, "=cmd|' /C calc'!A0[/red]\x1b[31m")
def test_tables_of_strangers_are_tuned_on_and_predicted(target, column, label):
    target, column = f"t{target}", f"c{column}"
    with tempfile.TemporaryDirectory() as folder:
        table(target, column, label).to_csv(f"{folder}/{label[:3].replace('/', '')}.csv", index=False)
        (name,) = (path.name for path in Path(folder).iterdir())
        said = run(folder, "columns", f"--target={target}", "--", name)
        if said.exit_code:  # such as a label that is a blank
            return
        run(folder, "columns", f"--target={target}", "--json", "--", name)
        given_ = (f"--target={target}", "--trials", "1", "--study", "s", *SMALL)
        done = run(folder, "fit", *given_, "--verbose", "--", name)
        if done.exit_code:
            return
        run(folder, "show", "s")
        run(folder, "report", "s")
        page = (Path(folder) / "s.html").read_text(encoding="utf-8")
        assert not [c for c in page if is_unseen(c, lines=True)]
        assert visible(label)[:40] in html.unescape(page)
        run(folder, "worker", f"--target={target}", "--", "s", name)
        predicted = run(folder, "predict", "-o", "p.csv", "--", "s.inna", name)
        read = pd.read_csv(f"{folder}/p.csv", keep_default_na=False)
        classes = run(folder, "predict", "-o", "p.csv", "--json", "--", "s.inna", name)
        assert [f"probability_{each}" for each in sorted({"no", label.strip()})] == json.loads(
            classes.stdout
        )["columns"][1:]
        assert set(read["prediction"].astype(str)) <= {"no", label.strip()}
        assert ("formulas" in predicted.stderr) == any(str(v)[:1] in "=+-@" for v in set(read["prediction"]))
        run(
            folder,
            "compare",
            *given_[:-6],
            "--study=c",
            "--fits=1",
            "--optimizers=inna",
            "--baselines=",
            *SMALL,
            "--",
            name,
        )


def test_a_label_that_a_spreadsheet_would_run_is_told_and_stays_as_it_is():
    said = spreadsheet_warning(
        pd.DataFrame({"prediction": ["=cmd|'/c calc'!A1", "yes", "=cmd|'/c calc'!A1"]})
    )
    assert said.startswith("1 label(s) begin as formulas do (\"=cmd|'/c calc'!A1\")")
    for label in ("+1+1", "-x", "@SUM(1)", "\t=1", "\r=1", "\n=1"):
        assert spreadsheet_warning(pd.DataFrame({"prediction": [label]})) is not None
    for labels in (["-1", "+2.5", "yes"], [-1.0, 2.0], [True, False], []):
        assert spreadsheet_warning(pd.DataFrame({"prediction": labels})) is None
    assert spreadsheet_warning(pd.DataFrame({"prediction_0": [1.0], "prediction_=x": [2.0]})) is None


@given(TEXTS, TEXTS)
@settings(max_examples=60)
@example(WORST, TURNED)
def test_a_terminal_gets_no_control_but_its_own_colours(one, other):
    written = io.StringIO()
    door = Door(file=written, force_terminal=True, color_system="truecolor", width=400)
    say(one, door)
    listed = Table(one, other, title=other)
    listed.add_row(other, one, style="bold")
    door.print(listed)
    door.print(one, style="red")
    door.lines(f"{one}\n{other}")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue())
    assert not [c for c in plain if is_unseen(c, lines=True)]
    assert plain.startswith(visible(one) + "\n")


@given(st.text(st.characters(), max_size=20))
@settings(max_examples=200)
def test_what_is_made_visible_stays_so_and_json_says_the_same(text):
    assert not any(map(is_unseen, visible(text)))
    assert visible(visible(text)) == visible(text)
    if not any(map(is_unseen, text)):
        assert visible(text) == text
    plain = json.dumps({"a": text}, ensure_ascii=False)
    assert json.loads(visible_json(plain)) == {"a": text}
    assert not any(is_unseen(c, lines=True) for c in visible_json(plain))


def test_a_line_of_the_log_is_one_line_whoever_writes_it(caplog):
    logger = get_logger("inna_tune.test")
    assert get_logger("inna_tune.test").filters == logger.filters
    with caplog.at_level(logging.INFO, "inna_tune.test"):
        logger.info("study %s: %d", "x\nERROR root: \x1b[31m", 3)
        logger.info("plain %d", 4)
    assert [r.getMessage() for r in caplog.records] == ["study x\\nERROR root: \\x1b[31m: 3", "plain 4"]


def test_an_error_that_quotes_a_cell_of_megabytes_is_short(tmp_path):
    said = run(tmp_path, "show", "x" * 100_000, "--storage", "sqlite:///no.db").stderr
    assert len(said) < 2_100
    assert len(run(tmp_path, "fit", "x" * 100_000).stderr) < 2_100


@pytest.mark.parametrize(
    "error",
    [MemoryError("of ours"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_that_runs_out_is_told_with_what_takes_less(error, capsys):
    with pytest.raises(typer.Exit) as ended, one_line_errors():
        raise error
    assert ended.value.exit_code == 2
    assert "not enough memory for this" in " ".join(capsys.readouterr().err.split())
