"""A user's files: NumPy arrays, folders of pictures, and telling which is which."""

import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from driftfield.data.array import Array
from driftfield.data.audio import Audio
from driftfield.data.images import Images
from driftfield.data.recognise import NAMES, find, named, recognise
from driftfield.data.stored import split
from driftfield.data.table import Table

RNG = np.random.default_rng(0)
TABLE = RNG.normal(5, 2, size=(20, 3))
LABELS = np.arange(20) % 4


def picture(path, shape=(6, 8, 3), pixels=None, **options):
    """Save a random picture of this shape, and return its pixels."""
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8) if pixels is None else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def all_pixels(source):
    """All items of a source in the user's units and in their original order."""
    x = torch.cat((source.train()[0], source.held()[0]))
    order = torch.cat(split(len(x)))
    return source.info.to_user(x)[order.argsort().numpy()]


def test_npy(tmp_path):
    np.save(tmp_path / "x.npy", TABLE)
    np.save(tmp_path / "y.npy", LABELS)
    data = Array(tmp_path / "x.npy")
    assert data.path == str(tmp_path / "x.npy")
    np.testing.assert_allclose(all_pixels(data.load()), TABLE, rtol=1e-6)
    assert Array(data.path, labels=str(tmp_path / "y.npy")).load().info.classes == ("0", "1", "2", "3")
    with pytest.raises(ValueError, match="key='x' has no meaning"):
        Array(data.path, key="x").load()


@pytest.mark.parametrize(
    ("arrays", "options", "classes"),
    [
        ({"x": TABLE}, {}, 0),
        ({"anything": TABLE}, {}, 0),
        ({"images": TABLE, "other": LABELS, "y": LABELS}, {}, 4),
        ({"data": TABLE, "labels": LABELS}, {}, 4),
        ({"anything": TABLE, "kind": LABELS}, {"labels": "kind"}, 4),
        ({"anything": TABLE, "other": LABELS}, {"key": "anything"}, 0),
    ],
)
def test_npz(tmp_path, arrays, options, classes):
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    source = Array(str(tmp_path / "x.npz"), **options).load()
    np.testing.assert_allclose(all_pixels(source), TABLE, rtol=1e-6)
    assert len(source.info.classes) == classes


def test_npz_that_needs_a_word(tmp_path):
    path = str(tmp_path / "x.npz")
    np.savez(path, one=TABLE, two=TABLE, y=LABELS[:7])
    with pytest.raises(ValueError, match=r"holds the arrays one, two, y; say which are the data with key=NAME"):
        Array(path).load()
    with pytest.raises(ValueError, match="has no array 'three'; it has one, two, y"):
        Array(path, key="three").load()
    with pytest.raises(ValueError, match="has no labels 'z'"):
        Array(path, key="one", labels="z").load()
    with pytest.warns(UserWarning, match=r"'y', int64 of shape \(7,\), is not one label for each of 20 items"):
        assert Array(path, key="one").load().info.classes == ()


def test_damaged_and_dangerous_arrays(tmp_path):
    objects, text, cut = (tmp_path / name for name in ("objects.npy", "text.npy", "cut.npz"))
    np.save(objects, np.array([{}, None]), allow_pickle=True)
    text.write_text("not an array")
    np.savez(cut, x=TABLE)
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / "empty.npy").touch()
    with pytest.raises(ValueError, match=r"objects\.npy holds Python objects, which are never unpickled"):
        Array(objects).load()
    for path in (text, cut, tmp_path / "empty.npy"):
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read as a NumPy file"):
            Array(path).load()
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.npy"):
        Array(tmp_path / "none.npy").load()
    np.save(tmp_path / "nan.npy", np.where(TABLE > 5, np.nan, TABLE))
    with pytest.raises(ValueError, match=rf"nan\.npy holds {(TABLE > 5).sum()} values that are NaN"):
        Array(tmp_path / "nan.npy").load()


FORMATS = [(suffix, shape) for suffix in ("png", "bmp", "tif", "PNG") for shape in ((6, 8, 3), (6, 8))]


@pytest.mark.parametrize(("suffix", "shape"), [*FORMATS, ("webp", (6, 8, 3))])
def test_lossless_pictures_come_back_bit_for_bit(tmp_path, suffix, shape):
    options = {"lossless": True} if suffix == "webp" else {}
    pixels = np.stack([picture(tmp_path / f"{i:02}.{suffix}", shape, **options) for i in range(12)])
    source = Images(tmp_path).load()
    assert source.info.shape == ((3 if len(shape) == 3 else 1), 6, 8)
    assert (source.info.kind, source.info.classes, source.info.count) == ("image", (), 11)
    np.testing.assert_array_equal(all_pixels(source), pixels)


def test_lossy_and_moving_pictures_are_read(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.jpg", pixels=np.full((6, 8, 3), 60 * (i + 1), np.uint8))
    frames = [Image.fromarray(np.full((6, 8), v, np.uint8)) for v in (240, 10)]
    frames[0].save(tmp_path / "3.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"1 images hold several frames, of which the first is taken .*3\.gif"):
        found = all_pixels(Images(tmp_path).load()).astype(int)
    assert np.abs(found - np.array([60, 120, 180, 240])[:, None, None, None]).max() <= 1


def test_grey_among_colour_becomes_colour_and_channels_decide(tmp_path):
    grey = picture(tmp_path / "0.png", (6, 8))
    colour = picture(tmp_path / "1.png")
    found = all_pixels(Images(tmp_path).load())
    np.testing.assert_array_equal(found, np.stack((np.repeat(grey[..., None], 3, -1), colour)))
    forced = all_pixels(Images(tmp_path, channels=1).load())
    np.testing.assert_array_equal(forced, np.stack((grey, np.asarray(Image.fromarray(colour).convert("L")))))
    with pytest.raises(ValueError, match="channels must be 1"):
        Images(tmp_path, channels=4)


def test_transparency_is_shown_on_white(tmp_path):
    """A pixel of value v and opacity a is seen as a v + (1 - a) 255."""
    rgba = RNG.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    picture(tmp_path / "0.png", pixels=rgba)
    picture(tmp_path / "1.png", pixels=rgba[..., ::3])
    a = rgba[..., 3:] / 255
    expected = a * rgba[..., :3] + (1 - a) * 255
    found = all_pixels(Images(tmp_path).load()).astype(float)
    assert np.abs(found[0] - expected).max() <= 1
    assert np.abs(found[1] - expected[..., :1]).max() <= 1
    assert (found[0, 0] == 255).all()
    np.testing.assert_array_equal(found[0, 1], rgba[1, :, :3])
    (tmp_path / "0.png").unlink()
    picture(tmp_path / "2.png", (6, 8))
    assert Images(tmp_path).load().info.shape == (1, 6, 8)  # grey with opacity is grey


def test_palettes_and_orientation(tmp_path):
    colour = picture(tmp_path / "0.png", pixels=RNG.integers(0, 2, (6, 8, 3), dtype=np.uint8) * 255)
    Image.fromarray(colour).quantize(8).save(tmp_path / "1.png")
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(colour)))  # a camera on its side: 6 = turn right to see
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "2.png", exif=exif)
    np.testing.assert_array_equal(all_pixels(Images(tmp_path).load()), np.stack([colour] * 3))


def test_class_folders(tmp_path):
    shades = {"cat/a.png": 10, "cat/deep/b.png": 20, "dog/a.png": 30, "dog/b.png": 40}
    for name, shade in shades.items():
        picture(tmp_path / name, pixels=np.array([[shade, 0], [0, 0]], np.uint8))
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "dog" / ".hidden.png", (9, 9))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    source = Images(tmp_path).load()
    assert source.info.classes == ("cat", "dog")
    for part in (source.train(), source.held()):
        shade = source.info.to_user(part[0])[:, 0, 0]
        assert part[1].tolist() == [int(v > 20) for v in shade]
    picture(tmp_path / "loose.png", (2, 2))
    assert Images(tmp_path).load().info.classes == ()
    assert Images(tmp_path / "dog").load().train()[1] is None


def test_mixed_sizes_and_the_way_out(tmp_path):
    wide = picture(tmp_path / "0.png", (6, 10, 3))
    picture(tmp_path / "1.png", (12, 6, 3))
    with pytest.raises(ValueError, match=r"0\.png is 10x6 but .*1\.png is 6x12; give one size, such as size=64"):
        Images(tmp_path).load()
    source = Images(tmp_path, size=6).load()
    np.testing.assert_array_equal(all_pixels(source)[0], wide[:, 2:8])  # the middle of the wide one, not resampled
    assert Images(tmp_path, size=4).load().info.shape == (3, 4, 4)
    flat = np.full((6, 10, 3), 90, np.uint8)
    picture(tmp_path / "0.png", pixels=flat)
    picture(tmp_path / "2.png")
    assert (all_pixels(Images(tmp_path, size=3).load())[0] == 90).all()
    with pytest.raises(ValueError, match="size is a number of pixels, at least 1; got 0"):
        Images(tmp_path, size=0)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_one_corrupt_image_is_named_and_skipped_only_on_request(tmp_path, damage, suffix):
    good = [picture(tmp_path / f"{i}.png", (40, 40)) for i in (0, 2, 3)]
    bad = tmp_path / f"1.{suffix}"
    picture(bad, (40, 40))
    whole = bad.read_bytes()
    threads = threading.active_count()
    bad.write_bytes({"cut": whole[: len(whole) // 2], "text": b"a letter", "empty": b""}[damage])
    with pytest.raises(ValueError, match=rf"1\.{suffix} cannot be read as an image .*skip_corrupt=True"):
        Images(tmp_path).load()
    with pytest.warns(UserWarning, match=rf"1 images left out, the first because .*1\.{suffix}"):
        source = Images(tmp_path, skip_corrupt=True).load()
    np.testing.assert_array_equal(all_pixels(source), np.stack(good))
    assert threading.active_count() <= threads  # the pool is gone, also after an error


def test_folders_that_cannot_be_learned(tmp_path):
    with pytest.raises(ValueError, match=r"holds no images; expected files ending in \.png"):
        Images(tmp_path).load()
    with pytest.raises(FileNotFoundError, match=r"no folder .*none"):
        Images(tmp_path / "none").load()
    picture(tmp_path / "one.png")
    with pytest.raises(ValueError, match="holds 1 readable images, but at least 2"):
        Images(tmp_path).load()
    with pytest.raises(ValueError, match=r"one\.png is a file; give the folder"):
        Images(tmp_path / "one.png").load()
    picture(tmp_path / "two.png", pixels=np.zeros((6, 8, 3), np.uint8))
    picture(tmp_path / "one.png", pixels=np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="one and the same value"):
        Images(tmp_path).load()


def deep_png(path, kind, channels):
    """A PNG of 16 bits a channel, written by its definition: Pillow reads colour ones as if they had 8."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + RNG.bytes(8 * channels * 2) for _ in range(6))
    header = struct.pack(">IIBBBBB", 8, 6, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("name", ["grey.png", "colour.png", "opacity.png", "grey.tif", "float.tif", "colour.ppm"])
def test_more_than_eight_bits_are_refused_by_name(tmp_path, name):
    path = tmp_path / name
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    if path.suffix == ".png":
        deep_png(path, *{"grey": (0, 1), "colour": (2, 3), "opacity": (6, 4)}[path.stem])
    elif path.suffix == ".ppm":
        path.write_bytes(b"P6 8 6 65535\n" + RNG.bytes(8 * 6 * 3 * 2))
    else:
        picture(path, pixels=RNG.integers(0, 99, (6, 8)).astype(np.uint16 if path.stem == "grey" else np.float32))
    with pytest.raises(ValueError, match=rf"{path.name} has more than 8 bits a channel; save it with 8, or .*\.npy"):
        Images(tmp_path, skip_corrupt=True).load()


def test_inks_become_colours_and_are_counted(tmp_path):
    """Full cyan is red's complement and so on; black covers all; half an ink leaves half."""
    inks = np.zeros((1, 6, 4), np.uint8)
    for i in range(4):
        inks[0, i, i] = 255
    inks[0, 4, 0] = 128
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.tif")
    picture(tmp_path / "b.png", pixels=np.zeros((1, 6, 3), np.uint8))
    with pytest.warns(UserWarning, match=r"1 images are in CMYK and were converted to RGB.*a\.tif"):
        found = all_pixels(Images(tmp_path).load())[0, 0]
    expected = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [127, 255, 255], [255, 255, 255]]
    np.testing.assert_array_equal(found, expected)


def ink_profile():
    """A colour profile of inks, by its definition (ICC v2, one 8-bit table): any ink at full is mid grey, L* = 50.

    The table has two points an ink, none and full: Lab white where all are none, black where all are full.
    """
    white, grey, black = (bytes([lightness, 128, 128]) for lightness in (255, 128, 0))
    identity = b"".join(struct.pack(">i", 65536 * (i in (0, 4, 8))) for i in range(9))
    ramp = bytes(range(256))
    table = struct.pack(">4sIBBBB", b"mft1", 0, 4, 3, 2, 0) + identity + ramp * 4 + white + grey * 14 + black + ramp * 3
    text = b"text\0\0\0\0none\0"
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    point = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    tags, blocks, at = b"", b"", 128 + 4 + 12 * 4
    for name, data in ((b"desc", description), (b"cprt", text), (b"wtpt", point), (b"A2B0", table)):
        data += bytes(-len(data) % 4)
        tags += name + struct.pack(">II", at + len(blocks), len(data))
        blocks += data
    size = at + len(blocks)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", 4) + tags + blocks


def test_inks_follow_the_profile_they_carry(tmp_path):
    """L* = 50 is 119 of 255 in sRGB; white stays white. A profile of another kind of picture is refused by name."""
    inks = np.zeros((1, 2, 4), np.uint8)
    inks[0, 0, 0] = 255
    image = Image.fromarray(inks, mode="CMYK")
    image.save(tmp_path / "a.tif", icc_profile=ink_profile())
    picture(tmp_path / "b.png", pixels=np.zeros((1, 2, 3), np.uint8))
    with pytest.warns(UserWarning, match="CMYK"):
        found = all_pixels(Images(tmp_path).load())[0, 0].astype(int)
    assert np.abs(found - [[119] * 3, [255] * 3]).max() <= 2  # the table has 8 bits
    image.save(tmp_path / "a.tif", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    with pytest.raises(ValueError, match=r"a\.tif cannot be read as an image"):
        Images(tmp_path).load()


def test_recognise(tmp_path):
    np.save(tmp_path / "x.npy", TABLE)
    np.savez(tmp_path / "x.npz", x=TABLE)
    picture(tmp_path / "folder" / "cats" / "0.png")
    assert recognise(tmp_path / "x.npy") == Array(str(tmp_path / "x.npy"))
    assert recognise(tmp_path / "x.npz") == Array(str(tmp_path / "x.npz"))
    assert recognise(tmp_path / "folder") == Images(str(tmp_path / "folder"))
    (tmp_path / "notes.txt").write_text("1,2")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match=r"notes\.txt is of no kind .*folder of images .*NumPy file"):
        recognise(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="bare holds no images"):
        recognise(tmp_path / "bare")
    with pytest.raises(ValueError, match="is one image; give the folder"):
        recognise(tmp_path / "folder" / "cats" / "0.png")
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*gone\.npy"):
        recognise(tmp_path / "gone.npy")


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, kind in NAMES.items():
        if kind in (Images, Array, Table, Audio):
            with pytest.raises(ValueError, match=f"data set '{name}' needs a path"):
                named(name)
        else:
            assert type(named(name)) is kind
            assert find(name) == named(name)
            x, _ = named(name).load().draw(3, torch.Generator().manual_seed(0))
            assert x.shape == (3, *named(name).load().info.shape)
    with pytest.raises(
        ValueError, match=r"^unknown data set 'digts'; did you mean 'digits'\? known: array, audio, checkerboard, "
    ):
        named("digts")
    with pytest.raises(ValueError, match="unknown data set 'qqqq'; known: array"):
        named("qqqq")
    with pytest.raises(ValueError, match="did you mean 'swiss-roll'"):
        find("swissroll")
    with pytest.raises(FileNotFoundError):
        find("some/folder")
    picture(tmp_path / "cats" / "0.png")
    assert find("cats") == Images(str(tmp_path / "cats"))  # whole, so that a run resumes from anywhere
