"""Recordings: every format's numbers are known, what does not fit is said in one sentence, and samples are files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from driftfield.data.audio import Audio, AudioInfo, read
from driftfield.data.images import Images
from driftfield.data.picture import picture
from driftfield.data.recognise import recognise
from driftfield.data.waves import HIGH, WIDE, panels
from driftfield.plain import from_plain, to_plain
from driftfield.report.files import write_samples
from driftfield.rng import normal, seeded
from driftfield.train.size import network_for

RATE = 8000


def noise(i: int, length: int = 600, channels: int = 1) -> np.ndarray:
    """White noise at a tenth of full scale, `(T, C)`; `(T,)` for one channel."""
    wave = 0.1 * normal(torch.empty(length, channels), seeded(i)).numpy()
    return wave[:, 0] if channels == 1 else wave


def folder(path: Path, waves: dict[str, np.ndarray], rate: int = RATE) -> Path:
    for name, wave in waves.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path / name, rate, wave)
    return path


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([0, 64, 128, 192, 255], np.uint8), [-1, -0.5, 0, 0.5, 127 / 128]),
        (np.array([-32768, -16384, 0, 16384, 32767], np.int16), [-1, -0.5, 0, 0.5, 32767 / 32768]),
        (np.array([-(2**31), 0, 2**30, 2**31 - 1], np.int32), [-1, 0, 0.5, 1 - 2.0**-31]),
        (np.array([-1.5, 0.25, 0.5], np.float32), [-1.5, 0.25, 0.5]),
    ],
)
def test_full_scale_is_1_in_every_format(values, wanted, tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, values)
    rate, wave = read(tmp_path / "a.wav")
    assert rate == RATE
    assert wave.dtype == np.float64
    np.testing.assert_array_equal(wave, [wanted])


@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
def test_other_formats(suffix, tmp_path):
    """FLAC of 16 bits is lossless; Vorbis keeps the shape of a tone to within some hundredths of it."""
    soundfile = pytest.importorskip("soundfile")
    tone = np.stack([0.5 * np.sin(np.arange(4000) * f) for f in (0.1, 0.2)], 1)
    soundfile.write(tmp_path / f"a{suffix}", tone, RATE)
    rate, wave = read(tmp_path / f"a{suffix}")
    assert rate == RATE
    assert wave.shape == (2, 4000)
    assert np.abs(wave.T - tone)[500:-500].max() < {".flac": 1 / 32768, ".ogg": 0.05}[suffix]
    (tmp_path / f"torn{suffix}").write_bytes(b"fLaC" + bytes(20))
    with pytest.raises(ValueError, match=f"torn{suffix} cannot be read"):
        read(tmp_path / f"torn{suffix}")


def test_a_folder_is_opened_in_the_users_units(tmp_path):
    waves = {f"{kind}/{i}.wav": noise(i + 20 * (kind == "b")) for kind in "ab" for i in range(20)}
    source = Audio(folder(tmp_path, waves)).load()
    info = source.info
    assert isinstance(info, AudioInfo)
    assert (info.kind, info.shape, info.rate, info.classes, info.count) == ("audio", (1, 600), RATE, ("a", "b"), 36)
    x, labels = source.train()
    assert abs(x.double().mean()) < 1e-7
    assert x.double().std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert info.std == pytest.approx(1, abs=1e-6)
    everything = np.concatenate([info.to_user(part[0]) for part in (source.train(), source.held())])
    assert everything.dtype == np.float32
    original = np.stack([waves[name] for name in sorted(waves)])[:, None]
    order = np.argsort(everything[:, 0, 0])
    np.testing.assert_allclose(everything[order], original[np.argsort(original[:, 0, 0])], rtol=0, atol=1e-7)
    torch.testing.assert_close(info.to_model(info.to_user(x)), x, rtol=0, atol=1e-6)
    first = np.array([waves["a/0.wav"][0] for _ in x])
    for row in np.flatnonzero(np.isclose(info.to_user(x)[:, 0, 0], first, rtol=0, atol=1e-7)):
        assert labels[row] == 0
    assert from_plain(json.loads(json.dumps(to_plain(info)))) == info


def test_length_cuts_the_end_or_adds_silence(tmp_path):
    data = folder(tmp_path, {"0.wav": noise(0, 500), "1.wav": noise(1, 700)})
    with pytest.raises(ValueError, match=r"differ in length: .*0.wav has 500 samples but .*1.wav has 700; .*length="):
        Audio(data).load()
    source = Audio(data, length=600).load()
    both = {len(np.trim_zeros(w[0], "b")): w[0] for w in map(_user(source), (source.train, source.held))}
    np.testing.assert_allclose(both[500][:500], noise(0, 500), rtol=0, atol=1e-7)
    assert np.abs(both[500][500:]).max() == 0
    np.testing.assert_allclose(both[600], noise(1, 700)[:600], rtol=0, atol=1e-7)


def _user(source):
    """The first sample of a split in the user's units; what is 0 up to float32's rounding is 0."""

    def first(split):
        wave = source.info.to_user(split()[0])[0]
        return np.where(np.abs(wave) < 1e-9, 0, wave)

    return first


def test_rates_must_agree_or_are_resampled(tmp_path):
    """A tone of 200 Hz at two rates is the same tone at a third: away from the ends, within the filter's ripple of
    a thousandth (Kaiser, beta 5: 53 dB, and its neighbours)."""
    for name, rate in (("0.wav", 16000), ("1.wav", 11025)):
        wavfile.write(tmp_path / name, rate, 0.5 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate))
    with pytest.raises(ValueError, match=r"differ in rate: .*16000 samples a second but .*11025; .*rate=16000"):
        Audio(tmp_path).load()
    source = Audio(tmp_path, rate=8000).load()
    assert source.info.rate == 8000
    assert source.info.shape == (1, 8000)
    wanted = 0.5 * np.sin(2 * np.pi * 200 * np.arange(8000) / 8000)
    for split in (source.train, source.held):
        assert np.abs(source.info.to_user(split()[0])[0, 0] - wanted)[200:-200].max() < 2.5e-3


def test_channels_must_agree_or_are_mixed(tmp_path):
    data = folder(tmp_path, {"0.wav": noise(0, channels=2), "1.wav": noise(1)})
    with pytest.raises(ValueError, match=r"differ in channels: .*0.wav has 2 but .*1.wav has 1; give channels=1"):
        Audio(data).load()
    mono, stereo = (Audio(data, channels=c).load().info.shape for c in (1, 2))
    assert (mono, stereo) == ((1, 600), (2, 600))
    source = Audio(data, channels=1).load()
    mixed = [source.info.to_user(split()[0])[0, 0] for split in (source.train, source.held)]
    assert min(np.abs(m - noise(0, channels=2).mean(1)).max() for m in mixed) < 1e-7
    folder(tmp_path, {"1.wav": noise(1, channels=3)})
    with pytest.raises(ValueError, match="has 3 channels, of which no two are asked"):
        Audio(data, channels=2).load()


def test_what_cannot_be_read(tmp_path):
    good = folder(tmp_path / "good", {"0.wav": noise(0), "1.wav": noise(1)})
    whole = (good / "0.wav").read_bytes()

    def told(content: bytes) -> str:
        bad = folder(tmp_path / "bad", {"0.wav": noise(0), "1.wav": noise(1)})
        (bad / "0.wav").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad/0\.wav") as caught:
            Audio(bad).load()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for damaged in (b"", b"FORM" + whole[4:], whole[:20], whole[: len(whole) // 2], whole[:22] + b"\0\0" + whole[24:]):
        assert "cannot be read as a WAV file" in told(damaged)
    wavfile.write(tmp_path / "none.wav", RATE, np.zeros(0, np.int16))
    assert "is empty: it holds no samples" in told((tmp_path / "none.wav").read_bytes())
    wavfile.write(tmp_path / "nan.wav", RATE, np.array([0.0, np.nan]))
    assert "NaN or infinite" in told((tmp_path / "nan.wav").read_bytes())


def test_silence_and_folders(tmp_path):
    quiet = folder(tmp_path / "q", {"0.wav": noise(0), "1.wav": noise(1), "2.wav": 0 * noise(2)})
    with pytest.warns(UserWarning, match=r"1 of 3 recordings are silent, the first .*2.wav"):
        Audio(quiet).load()
    dead = folder(tmp_path / "d", {"0.wav": 0 * noise(0), "1.wav": 0 * noise(0)})
    with pytest.warns(UserWarning, match="2 of 2"), pytest.raises(ValueError, match=r"all training .* are silent"):
        Audio(dead).load()
    with pytest.raises(ValueError, match="holds 1 recording, but at least 2"):
        Audio(folder(tmp_path / "one", {"0.wav": noise(0)})).load()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Audio(tmp_path / "none").load()
    with pytest.raises(ValueError, match="is a file; give the folder"):
        Audio(quiet / "0.wav").load()
    for option, value in (("length", 0), ("rate", 0), ("channels", 3)):
        with pytest.raises(ValueError, match=f"{option} .*got {value}"):
            Audio(quiet, **{option: value})


def test_a_folder_is_recognised(tmp_path):
    from PIL import Image

    sounds = folder(tmp_path / "s", {"a/0.wav": noise(0)})
    assert recognise(sounds) == Audio(str(sounds))
    pictures = tmp_path / "p"
    pictures.mkdir()
    Image.new("L", (4, 4)).save(pictures / "0.png")
    assert recognise(pictures) == Images(str(pictures))
    (pictures / "0.wav").write_bytes((sounds / "a" / "0.wav").read_bytes())
    with pytest.raises(ValueError, match="holds 1 images and 1 recordings; give a folder with one kind"):
        recognise(pictures)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images or recordings"):
        recognise(tmp_path / "empty")


def test_samples_are_files_that_are_read_again(tmp_path):
    """Nothing is cut off at full scale."""
    info = AudioInfo("audio", (2, 300), scale=0.8, rate=RATE)
    x = normal(torch.empty(3, 2, 300), seeded(4))
    files = write_samples(x, None, info, tmp_path, None)
    assert files == ["grid.png", "00000.wav ... 00002.wav"]
    again = np.stack([read(tmp_path / f"{i:05d}.wav")[1] for i in range(3)])
    np.testing.assert_array_equal(again, info.to_user(x))
    assert np.abs(again).max() > 1
    assert read(tmp_path / "00000.wav")[0] == RATE


def test_the_picture_shows_a_tone_where_it_is():
    """A tone at a quarter of the highest frequency is a line a quarter of the way up; its wave reaches half scale."""
    tone = 0.5 * np.sin(2 * np.pi * 0.125 * np.arange(2048))
    (panel,) = panels(tone[None, None])
    assert panel.shape == (2 * HIGH, WIDE, 3)
    band, spectrum = panel[:HIGH, :, 2], panel[HIGH:].sum(2)
    inked = np.flatnonzero((panel[:HIGH] != 255).any((1, 2)))
    assert inked.min() == pytest.approx(HIGH / 4, abs=1)
    assert inked.max() == pytest.approx(3 * HIGH / 4 - 1, abs=1)
    assert band.shape == (HIGH, WIDE)
    rows = spectrum[:, WIDE // 4 : -WIDE // 4].mean(1).argmax()
    assert rows == pytest.approx(HIGH * 3 / 4, abs=2)
    assert len(np.unique(panels(np.zeros((1, 1, 100)))[0, HIGH:].reshape(-1, 3), axis=0)) == 1
    assert panels(np.zeros((2, 1, 3))).shape == (2, 2 * HIGH, WIDE, 3)  # shorter than the picture is wide
    info = AudioInfo("audio", (1, 2048), rate=RATE)
    assert picture(torch.from_numpy(np.stack([tone[None]] * 5)).float(), info).mode == "RGB"


def test_long_series_get_a_deep_network():
    """Long ones go down to 8 to 16 points, so that their ends see each other; short ones no further than before."""
    for length, levels in ((2048, 9), (1000, 7), (16, 3), (2, 1)):
        build = network_for(AudioInfo("audio", (1, length), rate=RATE), 16)
        assert len(build.options["multipliers"]) == levels
        build(shape=(1, length))
