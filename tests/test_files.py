"""Whatever writes a file: its mode is what the umask says, and it appears whole or not at all."""

import os
import stat
import threading
import time
from pathlib import Path

import optuna
import pytest
from sklearn.datasets import load_iris

from inna_tune import InnaClassifier, SearchSpace
from inna_tune.cli import app
from inna_tune.files import replacing, scratch_folder, sweep
from inna_tune.report import write_report
from inna_tune.space import Prior, Uniform
from inna_tune.store.opening import create_study, open_storage
from inna_tune.store.transfer import export_study
from inna_tune.study.checkpoints import Checkpoint, Checkpoints
from tests.warm import Program

X, Y = load_iris(return_X_y=True, as_frame=True)


@pytest.fixture(scope="module")
def model():
    return InnaClassifier(hidden_layer_sizes=(4,), n_members=1, max_epochs=1, random_state=0).fit(X, Y)


@pytest.fixture
def study():
    study = optuna.create_study(study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    return study


def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


any_umask = pytest.fixture(params=[0o022, 0o002, 0o077, 0o027], ids=oct)(umask)


def assert_mode(path, mask):
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o666 & ~mask


def in_database(folder):
    storage = open_storage(f"sqlite:///{folder}/studies.db")
    study = create_study(storage, "s", "maximize", resume=False)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    return study


def test_of_a_model(any_umask, model, tmp_path):
    for _ in range(2):
        model.save(tmp_path / "m.inna")
        assert_mode(tmp_path / "m.inna", any_umask)
    assert os.listdir(tmp_path) == ["m.inna"]


def test_of_a_report(any_umask, study, tmp_path):
    assert_mode(write_report(study, tmp_path / "r.html"), any_umask)
    assert os.listdir(tmp_path) == ["r.html"]


def test_of_a_prior(any_umask, tmp_path):
    Prior(SearchSpace({"x": Uniform(0, 1)})).save(tmp_path / "p.json")
    assert_mode(tmp_path / "p.json", any_umask)
    assert os.listdir(tmp_path) == ["p.json"]


def test_of_a_picture_of_a_prior(any_umask, tmp_path):
    from typer.testing import CliRunner

    words = ["prior", "show", "regression", "-o", f"{tmp_path}/p.svg"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert_mode(tmp_path / "p.svg", any_umask)
    assert os.listdir(tmp_path) == ["p.svg"]


def test_of_databases_and_exported_studies(any_umask, tmp_path):
    in_database(tmp_path)._storage._backend.engine.dispose()
    assert_mode(tmp_path / "studies.db", any_umask)
    export_study(f"sqlite:///{tmp_path}/studies.db", "s", tmp_path / "copy.db")
    assert_mode(tmp_path / "copy.db", any_umask)


def test_of_checkpoints(any_umask, tmp_path):
    files = Checkpoints(in_database(tmp_path))
    assert files.save(0, Checkpoint("i", 1, 0.0, {}, {}, []))
    (written,) = files._files.folder.iterdir()
    assert_mode(written, any_umask)


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_of_predictions(any_umask, model, tmp_path, name):
    from typer.testing import CliRunner

    model.save(tmp_path / "m.inna")
    X.to_csv(tmp_path / "t.csv", index=False)
    words = ["predict", f"{tmp_path}/m.inna", f"{tmp_path}/t.csv", "-o", f"{tmp_path}/{name}"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert_mode(tmp_path / name, any_umask)
    assert (tmp_path / name).read_bytes()[:2] == (b"\x1f\x8b" if name.endswith("gz") else b"pr")
    assert sorted(os.listdir(tmp_path)) == sorted([name, "m.inna", "t.csv"])


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(TypeError, match="must be str"), replacing(path) as written, written.open("w") as file:
        file.writelines(["half of the new", 1])
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_a_reader_never_sees_a_part(tmp_path):
    path, texts = tmp_path / "f.txt", ["a" * 10_000, "b" * 10_000]
    path.write_text(texts[0])
    seen, ended = set(), threading.Event()

    def read():
        while not ended.is_set():
            seen.add(path.read_text())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for k in range(200):
            with replacing(path) as written, written.open("w") as file:
                for piece in range(0, 10_000, 2_500):
                    file.write(texts[k % 2][piece : piece + 2_500])
                    file.flush()
    finally:
        ended.set()
        thread.join()
    assert seen <= set(texts)


def test_through_a_link_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "there" / "f.txt")
    for text in ("new", "newer"):
        with replacing(link) as written:
            written.write_text(text)
        assert link.is_symlink()
        assert (tmp_path / "there" / "f.txt").read_text() == text


def test_a_pipe_is_written_to(tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    with replacing(pipe) as written:
        written.write_text("through")
    reader.join()
    assert found == ["through"]
    assert os.listdir(tmp_path) == ["pipe"]


def test_where_no_file_can_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing/f\.txt"), replacing(tmp_path / "missing" / "f.txt"):
        pass
    with pytest.raises(IsADirectoryError, match=str(tmp_path)), replacing(tmp_path):
        pass
    (tmp_path / "a").write_text("no folder")
    for make in (True, False):
        with (
            pytest.raises(OSError, match=r"/a"),
            replacing(tmp_path / "a" / "f.txt", make_folder=make),
        ):
            pass


def test_a_folder_that_others_remove_is_made_anew(tmp_path, monkeypatch):
    folder, made = tmp_path / "f", []
    mkdir = Path.mkdir

    def made_and_removed(self, **options):
        mkdir(self, **options)
        made.append(self)
        if len(made) < 3:
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", made_and_removed)
    with replacing(folder / "x.txt", make_folder=True) as written:
        written.write_text("x")
    assert (len(made), (folder / "x.txt").read_text()) == (3, "x")


def test_nothing_else_makes_files_of_a_mode_of_its_own():
    import inna_tune

    root = Path(inna_tune.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text()
        assert "mkstemp" not in text, path
        assert "NamedTemporaryFile" not in text, path
        # In files.py what replaces another file gets the mode that this one had.
        assert path.name == "files.py" or "chmod" not in text, path
        # It writes to a file of its own, which only its owner can read, and renames that.
        assert "save_file" not in text, path


LEFT = [".inna-tune-" + "0a" * 8 + end for end in (".tmp", ".tmp.csv", ".csv")] + [
    ".old.inna.ab12.tmp",
    ".my model.inna.x.tmp",
]
NOT_LEFT = [
    ".inna-tune-settings",
    ".inna-tune.toml",
    ".tmpAbC123",
    "inna-tune-x",
    ".inna.tmp",
    "m.inna",
    ".m.inna.swp",
]


def aged(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_killed_processes_left_is_swept_by_age_and_nothing_else(tmp_path):
    for name in (*LEFT, *NOT_LEFT):
        (tmp_path / name).write_text("x")
    (tmp_path / ".inna-tune-settings").unlink()
    for name in (".inna-tune-settings", ".inna-tune-" + "0b" * 8 + ".tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.toml").write_text("x")
    scratch = [".inna-tune-" + "0c" * 8 + ".tmp", ".inna-tune-abcd_123", "inna-tune-abcd1234"]
    for name in scratch:
        (tmp_path / name).mkdir()
        (tmp_path / name / "studies.db-wal").write_text("x")
    (tmp_path / f".inna-tune-{'0d' * 8}.tmp").symlink_to("m.inna")
    everything = set(os.listdir(tmp_path))
    for path in tmp_path.iterdir():
        aged(path, 600)
    sweep(tmp_path)
    assert set(os.listdir(tmp_path)) == everything, "somebody may be at what is young"
    for path in tmp_path.iterdir():
        aged(path, 7200)
    sweep(tmp_path)
    assert set(os.listdir(tmp_path)) == everything - {*LEFT, *scratch}
    aged(tmp_path / ".tmpAbC123", 7200)
    sweep(tmp_path, ours=True)
    assert not (tmp_path / ".tmpAbC123").exists()
    sweep(tmp_path / "no folder")


def test_what_a_living_process_works_at_is_not_swept_however_old(tmp_path):
    code = (
        "import sys; from inna_tune.files import replacing, scratch_folder\n"
        "with replacing('f.txt') as path, scratch_folder('.') as folder:\n"
        "    (folder / 'study.db').touch(); print(path.name, folder.name, flush=True); sys.stdin.read(); input()"
    )
    read, write = os.pipe()
    with Program(
        "import os, sys\nos.dup2(int(sys.argv[1]), 0)\n" + code, cwd=tmp_path, fds=(read,), loaded=()
    ) as program:
        os.close(read)
        names = program.stdout.readline().split()
        for name in names:
            aged(tmp_path / name, 10**6)
        sweep(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted(names)
        program.kill()
    os.close(write)
    for name in names:
        aged(tmp_path / name, 10**6)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only a superuser can make files of others")
def test_what_others_left_is_theirs(tmp_path):
    (tmp_path / LEFT[0]).touch()
    aged(tmp_path / LEFT[0], 10**6)
    os.chown(tmp_path / LEFT[0], 12345, 12345)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [LEFT[0]]


def test_a_scratch_folder_is_gone_at_the_end_and_for_its_owner_alone(any_umask, tmp_path):
    with scratch_folder(tmp_path) as folder:
        (folder / "x").touch()
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0
    assert os.listdir(tmp_path) == []


def test_what_is_replaced_keeps_mode_and_owner(any_umask, tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    before = path.stat()
    with replacing(path) as written:
        assert stat.S_IMODE(written.stat().st_mode) & 0o077 == 0, "until it is whole nobody else reads it"
        written.write_text("new")
    after = path.stat()
    assert (path.read_text(), after.st_mode, after.st_uid) == ("new", before.st_mode, before.st_uid)


def test_a_suffix_that_is_none_does_not_lengthen_the_name(tmp_path):
    path = tmp_path / ("a." + "b" * 250)
    with replacing(path, suffix=path.suffix) as written:
        written.write_text("x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("is_open", [True, False])
def test_nothing_takes_the_place_of_a_database(is_open, model, study, tmp_path):
    """From Python, too, where there is no command line to ask."""
    path = tmp_path / "studies.db"
    storage = in_database(tmp_path)._storage
    if not is_open:
        storage._backend.engine.dispose()
    writers = (
        model.save,
        Prior(SearchSpace({"x": Uniform(0, 1)})).save,
        lambda path: write_report(study, path),
    )
    for write in writers:
        with pytest.raises(FileExistsError, match="studies.db is a database"):
            write(path)
    assert optuna.get_all_study_names(f"sqlite:///{path}") == ["s"]
    storage._backend.engine.dispose()
