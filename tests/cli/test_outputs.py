"""Every command that writes a file, against everything that may be where it is told to write."""

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from matplotlib.figure import Figure
from typer.testing import CliRunner

from inna_tune.cli import app, outputs
from inna_tune.cli.outputs import default_file
from inna_tune.estimators import onnx_files
from inna_tune.files import replacing
from tests.test_cli import MAIN, SMALL, environment
from tests.warm import Program

# What each command writes, and how it is told where. All of them read the same small folder.
WRITERS = {
    "fit": ("model", ["fit", "t.csv", "--target", "y", "--trials", "1", "--study", "s", "--resume", *SMALL, "--storage",
                      "sqlite:///s.db", "--prior", "p.json", "--out"]),
    "predict": ("predictions", ["predict", "m.inna", "t.csv", "-o"]),
    "report": ("report", ["report", "s", "--storage", "sqlite:///s.db", "-o"]),
    "learn": ("prior", ["prior", "learn", "s", "--storage", "sqlite:///s.db", "-o"]),
    "show": ("picture", ["prior", "show", "p.json", "-o"]),
    "leave": ("program", ["export", "m.inna", "-o"]),
    "export": ("export", ["studies", "export", "s", "--storage", "sqlite:///s.db", "-o"]),
}  # fmt: skip
# An older output of each kind, by content; none has the name that its kind usually has.
OLDER = {
    "model": "older-model",
    "predictions": "older-predictions",
    "report": "older-report",
    "prior": "older-prior",
    "picture": "older-picture.png",
    "program": "older-program.onnx",
    "export": "older-export",
}
# Of those whose format hangs on it.
SUFFIX = {"show": ".png", "leave": ".onnx"}
READ = {
    "fit": ["t.csv", "p.json", "s.db"],
    "predict": ["m.inna", "t.csv"],
    "report": ["s.db"],
    "learn": ["s.db"],
    "show": ["p.json"],
    "leave": ["m.inna"],
    "export": ["s.db"],
}


def run(folder, *words):
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def write(folder, command, target, *more):
    return run(folder, *WRITERS[command][1], str(target), *more)


def assert_refused(done, argument, path, *words):
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"inna-tune: {argument} {path}: "), done.stderr
    assert "; " in done.stderr, "it names a remedy"
    assert all(word in done.stderr for word in words), done.stderr


def argument_of(command):
    return "--out" if command == "fit" else "--output"


@contextlib.contextmanager
def least_programs():
    """Within, a model that is exported is the least program: torch takes seconds to make one."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "least", [x], [y])
    made = SimpleNamespace(model_proto=helper.make_model(graph, producer_name="pytorch"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(onnx_files, "to_program", lambda model, encoded: None)
        patched.setattr(torch.onnx, "export", lambda program, **settings: made)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    frame["y"] = np.where(frame["a"] > 0, "yes", "no")
    frame.to_csv(folder / "t.csv", index=False)
    shared = Path(outputs.__file__).parents[1] / "space" / "classification.json"
    shutil.copy(shared, folder / "p.json")
    first = WRITERS["fit"][1]
    words = [
        *first[: first.index("--resume")],
        *SMALL,
        "--prior",
        "p.json",
        "--storage",
        "sqlite:///s.db",
        "--out",
        "m.inna",
    ]
    assert run(folder, *words).exit_code == 0
    with least_programs():
        for command, (kind, _) in WRITERS.items():
            done = write(folder, command, OLDER[kind])
            assert done.exit_code == 0, done.output
    shutil.copy(folder / "s.db", folder / "two.db")
    with sqlite3.connect(folder / "two.db") as connection:
        connection.execute("INSERT INTO studies (study_name) VALUES ('another')")
    connection.close()
    with sqlite3.connect(folder / "strange.db") as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()
    (folder / "notes.txt").write_text("mine")
    (folder / "table.csv").write_text("prediction,comment\n1,mine\n")
    (folder / "list.json").write_text("[1, 2]")
    (folder / "page.html").write_text("<!DOCTYPE html><title>mine</title>")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (folder / "net.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch" + bytes(100))
    (folder / "bytes").write_bytes(bytes(range(256)) * 40)
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    # Drawing takes seconds, and where the page is written does not hang on it.
    page = (made / OLDER["report"]).read_text(encoding="utf-8")
    monkeypatch.setattr("inna_tune.report.page.render_report", lambda study: page)
    monkeypatch.setattr("inna_tune.plots.priors.priors", lambda space: Figure(figsize=(1, 1)))
    program = (made / OLDER["program"]).read_bytes()

    def to_onnx(model, path, encoded):
        with replacing(path) as file:
            file.write_bytes(program)

    monkeypatch.setattr("inna_tune.estimators.to_onnx", to_onnx)
    return shutil.copytree(made, tmp_path / "here")


def contents(folder):
    """All that is there, but for what a database may have beside it."""
    beside = (".locks", ".checkpoints", ".trained", "-wal", "-shm")
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
        if not any(part.endswith(beside) for part in p.relative_to(folder).parts)
    }


def assert_unchanged(before, folder, *but):
    after = contents(folder)
    assert after.keys() - {*but} == before.keys() - {*but}
    assert not [name for name in before.keys() - {*but} if before[name] != after[name]]


MINE = ["notes.txt", "table.csv", "list.json", "page.html", "photo.png", "net.onnx", "bytes"]


def test_every_command_that_writes_is_here():
    """One that gets an output later fails here, until it is asked like the others."""

    def leaves(command, *names):
        for name, each in getattr(command, "commands", {}).items():
            yield from leaves(each, *names, name)
        if names:
            yield names, {word for p in command.params for word in p.opts}

    writing = {
        " ".join(names)
        for names, words in leaves(typer.main.get_command(app))
        if {"--output", "--out"} & words
    }
    assert writing == {
        " ".join(words[: 2 if words[0] in ("prior", "studies") else 1]) for _, words in WRITERS.values()
    }
    for names, words in leaves(typer.main.get_command(app)):
        assert ("--force" in words) == (" ".join(names) in writing), names


@pytest.mark.parametrize("command", WRITERS)
def test_what_must_stay_is_refused_whatever_one_says(command, folder):
    kind, argument = WRITERS[command][0], argument_of(command)
    os.mkfifo(folder / "pipe")
    os.link(folder / READ[command][0], folder / "hard")
    (folder / "soft").symlink_to(READ[command][0])
    (folder / "round").symlink_to("round")
    before = contents(folder)
    for force in ([], ["--force"]):
        _refuse_all(command, kind, argument, folder, force)
    assert_unchanged(before, folder)


def _refuse_all(command, kind, argument, folder, force):
    for path in (*READ[command], "hard", "soft", f"folder/../{READ[command][0]}"):
        assert_refused(write(folder, command, path, *force), argument, path, "name another file")
    for other, path in OLDER.items():
        if other != kind:
            assert_refused(write(folder, command, path, *force), argument, path, "that is a")
    for path in ("two.db", "strange.db"):
        assert_refused(write(folder, command, path, *force), argument, path, "database")
    for path, words in {
        "pipe": "no ordinary file",
        "/dev/null": "no ordinary file",
        "/dev/stdout": "no ordinary file",
        "/dev/fd/1": "no ordinary file",
        "folder": "is a folder",
        "no/such/file.png": "no folder",
        "notes.txt/file.png": "no folder",
        "round": "no file can be there",
        "x" * 252 + ".png": "no file can be there",
    }.items():
        assert_refused(write(folder, command, path, *force), argument, path, words)
    if command != "predict":
        assert_refused(write(folder, command, "-", *force), argument, "-", "standard output")
    if "s.db" in READ[command]:
        for path in ("s.db-wal", "s.db-journal"):
            assert_refused(write(folder, command, path, *force), argument, path, "database")
    for path in ("", "a\0b"):
        done = write(folder, command, path, *force)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", WRITERS)
def test_what_is_somebody_elses_goes_by_force_alone(command, folder):
    before = contents(folder)
    argument = argument_of(command)
    for path in MINE:
        assert_refused(write(folder, command, path), argument, path, "there already", "--force")
    assert_unchanged(before, folder)
    path = {"show": "photo.png", "leave": "net.onnx"}.get(command, "notes.txt")
    done = write(folder, command, path, "--force")
    assert done.exit_code == 0, done.output
    assert outputs.kind_of(folder / path) is not None
    assert_unchanged(before, folder, path, "s.db")


@pytest.mark.parametrize("command", WRITERS)
def test_what_is_new_empty_or_older_is_written(command, folder):
    kind = WRITERS[command][0]
    suffix = SUFFIX.get(command, "")
    (folder / "kept").mkdir()
    shutil.copy(folder / OLDER[kind], folder / "kept" / f"behind{suffix}")
    (folder / f"link{suffix}").symlink_to(f"kept/behind{suffix}")
    (folder / f"dangling{suffix}").symlink_to(f"kept/new{suffix}")
    (folder / f"empty{suffix}").touch()
    long = "n" * (255 - len(suffix)) + suffix
    targets = [f"empty{suffix}", OLDER[kind], f"link{suffix}", f"dangling{suffix}", long]
    for path in targets:
        older = (
            [] if kind != "export" or path in (f"empty{suffix}", f"dangling{suffix}", long) else ["--force"]
        )
        if older:
            assert_refused(write(folder, command, path), "--output", path, "there already", "--force")
        done = write(folder, command, path, *older)
        assert done.exit_code == 0, done.output
        assert outputs.kind_of(folder / path) is outputs.kind_of(folder / OLDER[kind]) is not None
    assert (folder / f"link{suffix}").is_symlink()
    assert (folder / f"dangling{suffix}").is_symlink()
    assert (folder / "kept" / f"new{suffix}").is_file()
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


# Up to where the program that is there is written again: torch takes seconds to make one.
LEAVING = f"""
import types, onnx, torch.onnx
from inna_tune.estimators import onnx_files
onnx_files.to_program = lambda model, encoded: None
torch.onnx.export = lambda *_, **__: types.SimpleNamespace(model_proto=onnx.load({OLDER["program"]!r}))
"""


@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk_and_a_crash_leave_what_was_there(command, folder, monkeypatch):
    path = OLDER[WRITERS[command][0]]
    force = ["--force"] if command == "export" else []
    before = contents(folder)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        done = write(folder, command, path, *force)
    assert (done.exit_code, done.stderr.count("No space left on device")) == (2, 1), done.output
    assert_unchanged(before, folder, "s.db")
    killed = (
        "import os, signal, inna_tune.report.page as p\np.render_report = lambda study: ''\n"
        "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed += LEAVING if command == "leave" else ""
    with Program(killed + MAIN, *WRITERS[command][1], path, *force, cwd=folder, env=environment()) as program:
        program.communicate()
    assert program.returncode == -9
    after = contents(folder)
    assert after[path] == before[path]
    left = [name for name in after.keys() - before.keys() if "/" not in name]
    assert len(left) == 1, "the neighbour that it was written to"
    # A start within the hour leaves it, since somebody may be at it; a later one does not.
    assert write(folder, command, path, *force).exit_code == 0
    assert (folder / left[0]).exists()
    os.utime(folder / left[0], (0, 0))
    assert write(folder, command, path, *force).exit_code == 0
    assert not (folder / left[0]).exists()


@pytest.mark.parametrize("command", WRITERS)
def test_a_file_that_is_replaced_keeps_its_mode(command, folder):
    path, fresh = folder / OLDER[WRITERS[command][0]], folder / f"fresh{SUFFIX.get(command, '')}"
    before = os.umask(0o027)
    try:
        path.chmod(0o604)
        assert write(folder, command, path, *(["--force"] if command == "export" else [])).exit_code == 0
        assert write(folder, command, fresh).exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o640


@pytest.mark.parametrize("command", WRITERS)
def test_what_is_written_lies_on_the_disk_before_it_has_its_name(command, folder, monkeypatch):
    done, path = [], folder / f"fresh{SUFFIX.get(command, '')}"
    real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}

    def fsync(descriptor):
        done.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real["fsync"](descriptor)

    def named(how):
        def act(source, target):
            done.append(("name", str(source)) if str(target) == str(path) else ("other", str(target)))
            real[how](source, target)

        return act

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", named("replace"))
    monkeypatch.setattr(os, "link", named("link"))
    assert write(folder, command, path).exit_code == 0
    (at,) = [k for k, (what, _) in enumerate(done) if what == "name"]
    assert ("fsync", done[at][1]) in done[:at]
    assert ("fsync", str(folder)) in done[at:]


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "t.csv", "--target", "y", "--trials", "1", "--storage"],
        ["compare", "t.csv", "--target", "y", "--trials", "1", "--storage"],
        ["worker", "s", "t.csv", "--storage"],
        ["studies", "import", "older-export", "--storage"],
        ["studies", "--storage"],
        ["show", "s", "--storage"],
        ["dashboard", "--port", "0", "--storage"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_is_no_database_is_none_to_any_command(words, folder):
    os.mkfifo(folder / "pipe")
    before = contents(folder)
    for path in ("t.csv", *MINE, *OLDER.values(), "folder", "/dev/null", "pipe", "strange.db", "y" * 256):
        if path == OLDER["export"]:
            continue
        done = run(folder, *words, f"sqlite:///{path}")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), (path, done.output)
    assert_unchanged(before, folder)


def test_a_table_that_comes_through_a_pipe_is_read_too(folder):
    for words in (
        ["predict", "m.inna", "-", "-o", "t.csv", "--force"],
        ["fit", "-", "--target", "y", "--out", "t.csv"],
    ):
        code = "import os, sys\nos.dup2(os.open('t.csv', os.O_RDONLY), 0)\n" + MAIN
        with Program(code, *words, cwd=folder, env=environment()) as program:
            _, said = program.communicate()
        assert program.returncode == 2
        assert "t.csv: that is the table which is read; name another file" in said


def test_a_study_is_not_imported_from_its_own_database(folder):
    before = contents(folder)
    done = run(folder, "studies", "import", "s.db", "--as", "again", "--storage", "sqlite:///s.db")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "s.db" in done.stderr
    assert_unchanged(before, folder)


def test_an_export_that_is_in_use_is_not_replaced(folder):
    path = folder / OLDER["export"]
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("SELECT * FROM studies").fetchall()
        assert_refused(write(folder, "export", path, "--force"), "--output", path, "in use")
    connection.close()
    assert write(folder, "export", path, "--force").exit_code == 0


def test_predictions_go_to_standard_output(folder):
    said = run(folder, "predict", "m.inna", "t.csv", "-o", "-").stdout
    assert said == (folder / OLDER["predictions"]).read_text()
    both = run(folder, "predict", "m.inna", "t.csv", "-o", "-", "--json")
    assert (both.exit_code, "--json" in both.stderr) == (2, True)


@pytest.mark.parametrize("name", ["a/b", "../a", "a\nb", "x" * 500, "ü" * 200, ".", "-x"])
def test_a_study_of_any_name_has_a_file_in_this_folder(name, folder):
    for suffix in (".inna", ".html"):
        path = folder / default_file(name, suffix)
        assert path.parent == folder
        path.write_text("")
        assert path.name.endswith(suffix)


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser may write to any file")
def test_a_file_that_is_read_only_stays(folder):
    path = folder / OLDER["report"]
    path.chmod(0o444)
    assert_refused(write(folder, "report", path, "--force"), "--output", path, "read-only")
