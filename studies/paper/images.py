"""The images of INNA's paper and the nets trained on them: MNIST's idx files, CIFAR's binary files, LeNet, Network-in-Network.

Files are those that the data sets' authors publish, read from a folder: ``mnist`` holds the four idx files, ``cifar-10``
``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, ``cifar-100`` ``train.bin`` and ``test.bin``; each of
them may be gzipped. A data set becomes whole tensors, standardised by mean and standard deviation of its training pixels.
"""

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100}


class Images(NamedTuple):
    """A data set: images [n, channels, height, width] of mean 0 and deviation 1, and labels [n]."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def _read(file: Path) -> bytes:
    """The bytes of a file, or of the gzipped one beside it."""
    if file.exists():
        return file.read_bytes()
    zipped = file.with_name(file.name + ".gz")
    if not zipped.exists():
        raise FileNotFoundError(f"there is neither {file} nor {zipped.name}; put the data set's files there")
    with gzip.open(zipped) as stream:
        return stream.read()


def read_idx(file: Path) -> np.ndarray:
    """Array of unsigned bytes in an idx file, of the shape that the file gives.

    Raises
    ------
    FileNotFoundError
        If there is neither the file nor ``file.gz``.
    ValueError
        If it is no idx file of unsigned bytes, or longer or shorter than its header says.
    """
    data = _read(file)
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{file} is not an idx file of unsigned bytes: it begins with {data[:4].hex()}")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"{file} has {max(len(data) - start, 0)} bytes for the shape {shape}; it is cut off or damaged"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def read_cifar(file: Path, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 3, 32, 32] and the last of `n_labels` labels [n] in a binary file of CIFAR.

    CIFAR-10 has one label a record, CIFAR-100 a coarse and a fine one.

    Raises
    ------
    FileNotFoundError
        If there is neither the file nor ``file.gz``.
    ValueError
        If the file is empty or does not consist of whole records.
    """
    data = _read(file)
    size = n_labels + 3 * 32 * 32
    if not data or len(data) % size:
        raise ValueError(f"{file} has {len(data)} bytes, not a multiple of the {size} of a record")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
    return records[:, n_labels:].reshape(-1, 3, 32, 32), records[:, n_labels - 1]


def load_images(folder: Path, name: str) -> Images:
    """A data set of the paper.

    Parameters
    ----------
    folder : Path
        Holds the folders ``mnist``, ``cifar-10`` and ``cifar-100``, as far as they are wanted.
    name : {"mnist", "cifar10", "cifar100"}

    Raises
    ------
    FileNotFoundError, ValueError
        If the data set is unknown, its files are missing, or they are not what they should be.
    """
    if name not in CLASSES:
        raise ValueError(f"data={name!r} is unknown; choose one of {', '.join(CLASSES)}")
    if name == "mnist":
        parts = [
            read_idx(folder / "mnist" / f"{part}-{kind}-ubyte")
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        ]
        train_x, test_x = parts[0][:, None], parts[2][:, None]
        train_y, test_y = parts[1], parts[3]
    elif name == "cifar10":
        batches = [
            read_cifar(folder / "cifar-10" / f"data_batch_{number}.bin", 1) for number in (1, 2, 3, 4, 5)
        ]
        train_x, train_y = (np.concatenate(part) for part in zip(*batches, strict=True))
        test_x, test_y = read_cifar(folder / "cifar-10" / "test_batch.bin", 1)
    else:
        train_x, train_y = read_cifar(folder / "cifar-100" / "train.bin", 2)
        test_x, test_y = read_cifar(folder / "cifar-100" / "test.bin", 2)
    for x, y in ((train_x, train_y), (test_x, test_y)):
        if len(x) != len(y):
            raise ValueError(f"{name}: {len(x)} images and {len(y)} labels; the files do not belong together")
        if y.max() >= CLASSES[name]:
            raise ValueError(f"{name}: label {y.max()} is not below {CLASSES[name]}; the files are damaged")
    train, test = (torch.tensor(x, dtype=torch.float32) for x in (train_x, test_x))
    axes = (0, 2, 3)
    mean, std = train.mean(axes, keepdim=True), train.std(axes, keepdim=True).clamp(min=1e-6)
    labels = (torch.tensor(y, dtype=torch.long) for y in (train_y, test_y))
    return Images((train - mean) / std, next(labels), (test - mean) / std, next(labels))


class LeNet(nn.Sequential):
    """LeNet-5 with rectifiers and max-pooling: 61,706 weights on MNIST.

    Parameters
    ----------
    channels, size, n_classes : int
        Of the square images, and of the labels.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner (1998). Gradient-based learning applied to document recognition. Proc. IEEE 86(11).
    """

    def __init__(self, channels: int = 1, size: int = 28, n_classes: int = 10) -> None:
        padding = 2 if size == 28 else 0
        side = ((size + 2 * padding - 4) // 2 - 4) // 2
        super().__init__(
            nn.Conv2d(channels, 6, 5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * side * side, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, n_classes),
        )


class NetworkInNetwork(nn.Sequential):
    """Network-in-Network: three convolutions, each followed by a small net at every place, and a global mean.

    Parameters
    ----------
    channels, size, n_classes : int
        Of the square images, and of the labels; the net fits any size from 16 on.

    References
    ----------
    Lin, Chen, Yan (2014). Network in network. ICLR.
    """

    def __init__(self, channels: int = 3, size: int = 32, n_classes: int = 10) -> None:
        def block(inputs: int, kernel: int, widths: tuple[int, int, int]) -> list[nn.Module]:
            layers: list[nn.Module] = []
            for i, (before, after) in enumerate(zip((inputs, *widths), widths, strict=False)):
                extent = 1 if i else kernel
                layers += [nn.Conv2d(before, after, extent, padding=extent // 2), nn.ReLU()]
            return layers

        super().__init__(
            *block(channels, 5, (192, 160, 96)),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.Dropout(0.5),
            *block(96, 5, (192, 192, 192)),
            nn.AvgPool2d(3, stride=2, ceil_mode=True),
            nn.Dropout(0.5),
            *block(192, 3, (192, 192, n_classes)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


NETS = {"lenet": LeNet, "nin": NetworkInNetwork}


def make_net(name: str, images: Images, n_classes: int, seed: int) -> nn.Sequential:
    """A net of `NETS` for the images, its weights drawn from `seed`; the global random state stays as it was."""
    channels, size = images.train_x.shape[1], images.train_x.shape[2]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETS[name](channels, size, n_classes)
