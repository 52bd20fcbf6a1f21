"""The studies on images: their files are read as published, and every optimizer of theirs trains."""

import gzip
import importlib
import math
import struct
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "studies" / "paper"
OPTIMIZERS = ("INNA", "SGD", "SGD, momentum", "ADAGRAD", "ADAM", "AdamW", "INNAprop")


@pytest.fixture
def images(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("images")


@pytest.fixture
def lenet(images):
    return importlib.import_module("lenet")


def idx(values):
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A folder with a tiny MNIST, half of its files gzipped, and its arrays."""
    rng = np.random.default_rng(0)
    (tmp_path / "mnist").mkdir()
    arrays = {}
    for part, n in (("train", 64), ("t10k", 8)):
        arrays[part] = rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)
        (tmp_path / "mnist" / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(arrays[part][0])))
        (tmp_path / "mnist" / f"{part}-labels-idx1-ubyte").write_bytes(idx(arrays[part][1]))
    return tmp_path, arrays


def cifar(folder, name, n_labels, n, rng):
    """Write records as CIFAR's authors do: labels, then the red, green and blue planes, row by row."""
    labels = rng.integers(0, 10, (n, n_labels))
    pixels = rng.integers(0, 256, (n, 3, 32, 32))
    records = b"".join(
        bytes(label.tolist()) + b"".join(plane.astype(np.uint8).tobytes() for plane in picture)
        for label, picture in zip(labels, pixels, strict=True)
    )
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(records)
    return pixels, labels[:, -1]


def test_mnist_is_read_as_it_was_written(images, mnist):
    folder, arrays = mnist
    found = images.load_images(folder, "mnist")
    pixels = torch.tensor(arrays["train"][0], dtype=torch.float32)
    assert found.train_x.shape == (64, 1, 28, 28)
    torch.testing.assert_close(found.train_x[:, 0], (pixels - pixels.mean()) / pixels.std())
    torch.testing.assert_close(
        found.test_x[:, 0], (torch.tensor(arrays["t10k"][0]) - pixels.mean()) / pixels.std()
    )
    assert found.train_y.tolist() == arrays["train"][1].tolist()
    assert found.test_y.tolist() == arrays["t10k"][1].tolist()


@pytest.mark.parametrize(
    ("name", "folder", "n_labels"), [("cifar10", "cifar-10", 1), ("cifar100", "cifar-100", 2)]
)
def test_cifar_is_read_as_it_was_written(images, tmp_path, name, folder, n_labels):
    rng = np.random.default_rng(1)
    train = [f"data_batch_{i}.bin" for i in range(1, 6)] if name == "cifar10" else ["train.bin"]
    test = "test_batch.bin" if name == "cifar10" else "test.bin"
    written = [cifar(tmp_path / folder, file, n_labels, 3, rng) for file in train]
    test_pixels, test_labels = cifar(tmp_path / folder, test, n_labels, 2, rng)
    found = images.load_images(tmp_path, name)
    pixels = torch.tensor(np.concatenate([p for p, _ in written]), dtype=torch.float32)
    mean, std = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    torch.testing.assert_close(found.train_x, (pixels - mean) / std)
    torch.testing.assert_close(found.test_x, (torch.tensor(test_pixels) - mean) / std)
    assert found.train_y.tolist() == np.concatenate([y for _, y in written]).tolist()
    assert found.test_y.tolist() == test_labels.tolist()


def test_cifar_100_gives_the_fine_label(images, tmp_path):
    (tmp_path / "file.bin").write_bytes(bytes([7, 42]) + bytes(3072))
    _, labels = images.read_cifar(tmp_path / "file.bin", 2)
    assert labels.tolist() == [42]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not an idx file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "not an idx file"),
        (b"\x00\x00\x08\x03\x00\x00", "cut off"),
        (idx(np.zeros((3, 4)))[:-1], "cut off"),
        (idx(np.zeros((3, 4))) + b"\x00", "cut off or damaged"),
    ],
)
def test_a_damaged_idx_file_is_refused(images, tmp_path, content, match):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        images.read_idx(tmp_path / "file")


@pytest.mark.parametrize("length", [0, 3072, 3074])
def test_a_damaged_cifar_file_is_refused(images, tmp_path, length):
    (tmp_path / "file").write_bytes(bytes(length))
    with pytest.raises(ValueError, match="not a multiple of the 3073"):
        images.read_cifar(tmp_path / "file", 1)


def test_missing_and_wrong_data_are_named(images, mnist, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither .*data_batch_1"):
        images.load_images(tmp_path, "cifar10")
    with pytest.raises(ValueError, match="mnist, cifar10, cifar100"):
        images.load_images(tmp_path, "imagenet")
    file = tmp_path / "mnist" / "train-labels-idx1-ubyte"
    file.write_bytes(idx(np.full(64, 10)))
    with pytest.raises(ValueError, match="label 10 is not below 10"):
        images.load_images(tmp_path, "mnist")
    file.write_bytes(idx(np.zeros(63)))
    with pytest.raises(ValueError, match="64 images and 63 labels"):
        images.load_images(tmp_path, "mnist")


def test_lenet_has_the_published_number_of_weights(images):
    assert sum(p.numel() for p in images.LeNet().parameters()) == 61_706
    assert images.LeNet()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert images.LeNet(3, 32, 100)(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


@pytest.mark.parametrize("n_classes", [10, 100])
def test_network_in_network_scores_every_class(images, n_classes):
    net = images.NetworkInNetwork(n_classes=n_classes).eval()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, n_classes)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in net) == 9


def test_weights_depend_on_the_seed_alone(images, mnist):
    data = images.load_images(mnist[0], "mnist")
    before = torch.random.get_rng_state()
    first, again, other = (images.make_net("lenet", data, 10, seed)[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_optimizers_are_those_of_the_issue(lenet):
    assert tuple(lenet.OPTIMIZERS) == OPTIMIZERS
    for _, space, usual in lenet.OPTIMIZERS.values():
        assert list(space) == list(usual)
        assert all(law.low <= usual[name] <= law.high for name, law in space.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains(images, lenet, mnist, name):
    """Both epochs lower the loss on the images trained on, the same way each time."""
    data = images.load_images(mnist[0], "mnist")
    usual = lenet.OPTIMIZERS[name][2]
    options = {"n_rows": 64, "epochs": 2, "seed": 0, "decay": lenet.usual_decay(name)}
    runs = []
    for _ in range(2):
        net = images.make_net("lenet", data, 10, 0)
        runs.append(lenet.record(data, net, lenet.make_optimizer(name, net, usual), **options))
    assert runs[0] == runs[1]
    losses = [row["training_loss"] for row in runs[0]]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]


def test_a_run_that_diverges_keeps_what_came_before(images, lenet, mnist):
    data = images.load_images(mnist[0], "mnist")
    net = images.make_net("lenet", data, 10, 0)
    optimizer = lenet.make_optimizer("SGD", net, {"lr": 0.01})
    # From the third epoch on every step is far too long.
    rows = lenet.record(
        data, net, optimizer, n_rows=64, epochs=4, seed=0, decay=lambda epoch: 1.0 if epoch < 2 else 1e12
    )
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert all(math.isfinite(row["training_loss"]) for row in rows[:3])
    assert math.isnan(rows[-1]["training_loss"])
    assert math.isnan(rows[-1]["test_accuracy"])


def test_tuning_resumes_and_keeps_to_its_images(images, lenet, mnist, tmp_path, monkeypatch):
    data = images.load_images(mnist[0], "mnist")
    monkeypatch.setattr(lenet, "N_VALIDATION", 16)
    options = Namespace(
        data="mnist",
        net="lenet",
        tune_rows=32,
        validation_rows=8,
        tune_epochs=1,
        trials=2,
        out=tmp_path / "r.csv",
    )
    learn, judge = lenet.split(data, options)
    assert len(learn) == 32
    assert len(judge) == 8
    assert not set(learn.tolist()) & set(judge.tolist())
    assert len(lenet.tune("INNA", data, options).trials) == 2
    options.trials = 3
    study = lenet.tune("INNA", data, options)
    assert [trial.number for trial in study.trials] == [0, 1, 2]
    assert study.trials[0].params == lenet.OPTIMIZERS["INNA"][2]
    table = lenet.trials_table({"INNA": study})
    assert lenet.best_settings(table, "INNA") == pytest.approx(study.best_params)


def test_results_of_other_options_are_not_mixed(lenet, tmp_path):
    file = tmp_path / "results.csv"
    assert lenet.known_rows(file, {"rows": 10}).empty
    lenet.append(file, [{"rows": 10, "seed": 0}])
    lenet.append(file, [{"rows": 10, "seed": 1}])
    assert lenet.known_rows(file, {"rows": 10}).seed.tolist() == [0, 1]
    with pytest.raises(SystemExit, match="rows=10, not 20"):
        lenet.known_rows(file, {"rows": 20})
    assert len(pd.read_csv(file)) == 2
    lenet.forget(file)
    assert lenet.known_rows(file, {"rows": 20}).empty


def test_network_in_network_on_cifar_runs_from_files_to_figure(lenet, tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    for i in range(1, 6):
        cifar(tmp_path / "cifar-10", f"data_batch_{i}.bin", 1, 4, rng)
    cifar(tmp_path / "cifar-10", "test_batch.bin", 1, 4, rng)
    names = ("INNA", "SGD")
    for table in ("OPTIMIZERS", "COLOURS", "MARKERS"):
        monkeypatch.setattr(lenet, table, {name: getattr(lenet, table)[name] for name in names})
    monkeypatch.setattr(lenet, "N_VALIDATION", 4)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setenv("INNA_TUNE_DATA", str(tmp_path))
    command = [
        "lenet.py",
        "--data",
        "cifar10",
        "--net",
        "nin",
        "--rows",
        "8",
        "--tune-rows",
        "4",
        "--trials",
        "1",
    ]
    out = tmp_path / "nin.csv"
    monkeypatch.setattr("sys.argv", [*command, "--epochs", "1", "--seeds", "1", "--out", str(out)])
    lenet.main()
    results = pd.read_csv(out)
    assert results.groupby("optimizer").epoch.apply(list).to_dict() == {name: [0, 1] for name in names}
    assert out.with_suffix(".png").stat().st_size > 0
    lines = [line for line in out.with_suffix(".md").read_text().splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(names)
    assert "was not run" not in out.with_suffix(".md").read_text()

    lenet.main()
    assert pd.read_csv(out).equals(results)


@pytest.fixture
def tiny(mnist, monkeypatch):
    """Run a study on the tiny MNIST by its own command line."""
    folder, _ = mnist
    monkeypatch.setenv("INNA_TUNE_DATA", str(folder))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    trials = folder / "trials.csv"
    setting = {"optimizer": "INNA", "trial": 0, "validation_loss": 1.0, "lr": 0.1, "alpha": 0.5, "beta": 0.1}
    pd.DataFrame([setting, setting | {"trial": 1, "validation_loss": 0.5, "lr": 0.2}]).to_csv(
        trials, index=False
    )

    def run(module, *options):
        out = folder / f"{module.__name__}.csv"
        common = [
            "--rows",
            "64",
            "--epochs",
            "1",
            "--seeds",
            "1",
            "--trials-file",
            str(trials),
            "--out",
            str(out),
        ]
        monkeypatch.setattr("sys.argv", [f"{module.__name__}.py", *common, *options])
        module.main()
        assert out.with_suffix(".png").stat().st_size > 0
        return pd.read_csv(out), out.with_suffix(".md").read_text()

    return run


def test_decay_trains_under_every_law_with_the_best_setting(lenet, tiny):
    decay = importlib.import_module("decay")
    results, text = tiny(decay)
    assert results.law.unique().tolist() == list(decay.LAWS)
    assert (results.lr == 0.2).all()
    assert all(f"| {law} |" in text for law in decay.LAWS)
    assert tiny(decay)[0].equals(results)


def test_the_grid_counts_every_cell_on_one_side_of_the_boundary(lenet, tiny, monkeypatch):
    grid = importlib.import_module("grid")
    monkeypatch.setattr(grid, "VALUES", (0.1, 1.0))
    monkeypatch.setattr(grid, "STEPS", (0.05, 1e6))
    results, text = tiny(grid, "--test-rows", "8", "--curvature-epochs", "1")
    assert len(results.drop_duplicates(["lr", "alpha", "beta"])) == 8
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if "stable |" in line]
    curvatures = {row[0] for row in rows}
    for curvature in curvatures:
        counts = [int(row[3]) for row in rows if row[0] == curvature and row[1] == "all"]
        assert sum(counts) == 8
    # Steps of a million leave upwards at once.
    assert all(row[2] == "unstable" and row[4] == "4" for row in rows if row[1] == "1000000.0")
