"""The page: whole, safe, honest about what it lacks, measured once, and one sentence for every mistake."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import driftfield as df
from driftfield.report import measure, quality, sections
from driftfield.report.page import write_report
from driftfield.report.parts import measured
from driftfield.report.quality import SOLVERS
from driftfield.report.subject import subjects
from driftfield.train.interrupt import Interrupted

from .common import MLP, UNET, trained, vectors

N = 16


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return trained("digits", folder / "pfgmpp", UNET)


@pytest.fixture(scope="module")
def edm(tmp_path_factory) -> Path:
    return trained("digits", tmp_path_factory.mktemp("more") / "edm", UNET, df.EDM())


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Path:
    return trained("rings", tmp_path_factory.mktemp("toys") / "rings", MLP, df.Rectified())


@pytest.fixture(autouse=True)
def _short(request, monkeypatch):
    """Curves of two points, but for the test of whole ones."""
    if request.function is not test_a_page_about_two_runs:
        monkeypatch.setattr(quality, "NFES", (5, 9))


class Page(HTMLParser):
    """What a page holds, and that every element is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.headings, self.ids, self.addresses = [], [], [], [], []
        self.text: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[k] for k in ("src", "href") if k in found]
        if tag == "img":
            self.images.append(found)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page(path: Path) -> Page:
    return Page(path.read_text())


def test_a_page_about_two_runs(digits, edm, tmp_path):
    made = write_report([digits, edm], out=tmp_path / "r.html", figures=tmp_path / "figures", n=N)
    found = page(tmp_path / "r.html")
    assert found.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(found.headings, found.headings[1:], strict=False))
    assert len(found.ids) == len(set(found.ids))
    assert all(a.startswith(("data:", "#")) for a in found.addresses)
    assert {a[1:] for a in found.addresses if a.startswith("#")} <= set(found.ids)
    assert "script" not in found.tags
    assert all(image["alt"] and image["width"] and image["height"] for image in found.images)
    for word in ("pfgmpp", "Fréchet distance", "objective.process", "PFGMPP(D=128", "What differs", "seed 0"):
        assert word in found.words
    assert set(made["runs"]) == {"pfgmpp", "edm"}
    curves = made["runs"]["edm"]["quality"]["frechet"]
    assert [[point[0] for point in curves[s]] for s in SOLVERS] == [[5, 9, 17, 35]] * 4
    scores = made["runs"]["edm"]["scores"]
    assert scores["record"]["n"] == N
    assert measured(scores["values"]["frechet"], scores["errors"]["frechet"]) in found.words
    files = sorted(Path(f).name for f in made["figures"])
    assert {"samples-edm.png", "samples-edm.svg", "quality-pfgmpp.svg", "training.png", "way-edm.svg"} <= set(files)
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == files
    assert len(found.images) == len(files) / 2
    json.dumps(made)


def test_the_second_time_nothing_is_measured(digits, tmp_path):
    first = write_report(digits, out=tmp_path / "1.html", n=N)
    (folder,) = (digits / "report").iterdir()
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    second = write_report(digits, out=tmp_path / "2.html", n=N)
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    assert second["runs"] == first["runs"]
    damaged = next(p for p in folder.iterdir() if p.name.startswith("quality-heun-9-"))
    damaged.write_bytes(b"torn")
    assert write_report(digits, out=tmp_path / "3.html", n=N)["runs"] == first["runs"]
    assert {n for n, t in before.items() if (folder / n).stat().st_mtime_ns != t} == {damaged.name}


def test_other_weights_are_measured_anew(digits, tmp_path):
    """Results belong to the weights, whatever the folder is called."""
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    (subject,) = subjects([run])
    measure.shown(subject, 0)
    other = subject.denoiser
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    from driftfield.train.load import store

    store(run / "model.safetensors", other, subject.recipe, step=7)
    (changed,) = subjects([run])
    assert changed.folder != subject.folder
    assert changed.step == 7
    assert not torch.equal(measure.shown(changed, 0)[0], measure.shown(subject, 0)[0])


def test_an_interrupted_report_goes_on(digits, tmp_path, monkeypatch):
    """Ctrl-C between two points of a curve: no page, the points kept, and the same call measures the rest."""
    run = tmp_path / "run"
    shutil.copytree(digits, run, ignore=shutil.ignore_patterns("report"))
    ways = sections.ways

    def stop(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(sections, "ways", stop)
    with pytest.raises(Interrupted, match="the same command goes on"):
        write_report(run, out=tmp_path / "r.html", n=N)
    assert not (tmp_path / "r.html").exists()
    (folder,) = (run / "report").iterdir()
    kept = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert len(kept) == len(SOLVERS) * len(quality.NFES) + 4  # and samples, neighbours, scores, training data's scores
    monkeypatch.setattr(sections, "ways", ways)
    write_report(run, out=tmp_path / "r.html", n=N)
    assert {n: (folder / n).stat().st_mtime_ns for n in kept} == kept


def test_points_and_vectors_have_pages(points, tmp_path):
    """Different data side by side, data that are drawn afresh, and columns instead of pictures."""
    array = trained(vectors(tmp_path), tmp_path / "vectors", MLP, df.VP())
    write_report([points, array], out=tmp_path / "r.html", n=N)
    found = page(tmp_path / "r.html")
    assert "not comparable" in found.words
    assert "drawn afresh at every step" in found.words
    assert {"figure-samples-rings", "figure-samples-vectors", "figure-way-rings", "figure-way-vectors"} <= set(
        found.ids
    )


def test_without_its_data_a_page_says_what_it_lacks(tmp_path):
    """All that needs no data is there; what does is named with the reason; and with the data found again it is back."""
    path = vectors(tmp_path)
    run = trained(path, tmp_path / "run", MLP)
    path.rename(tmp_path / "elsewhere.npy")
    made = write_report(run, out=tmp_path / "r.html", n=N)
    found = page(tmp_path / "r.html")
    assert found.words.count(f"there is no file {path}") == 4  # samples, neighbours, scores, quality
    assert "figure-training" in found.ids
    assert "scores" not in made["runs"]["run"]
    made = write_report(run, out=tmp_path / "r.html", n=N, data=str(tmp_path / "elsewhere.npy"))
    assert made["runs"]["run"]["scores"]["record"]["n"] == N
    assert "there is no file" not in page(tmp_path / "r.html").words


def test_an_unfinished_run_says_so(digits, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    lines = (run / "log.jsonl").read_text().splitlines()
    cut = [line for line in lines if json.loads(line)["step"] <= 3]
    (run / "log.jsonl").write_text("\n".join(cut) + '\n{"step": 4, "lo')  # and a line that is being written
    (run / "model.safetensors").rename(run / "last.safetensors")
    write_report(run, out=tmp_path / "r.html", n=N)
    assert "training stands at step 3 of 6" in page(tmp_path / "r.html").words


def test_weights_alone_are_enough(digits, tmp_path):
    shutil.copy(digits / "model.safetensors", tmp_path / "mine.safetensors")
    write_report(tmp_path / "mine.safetensors", out=tmp_path / "r.html", n=N)
    assert "has no log beside its weights" in page(tmp_path / "r.html").words


def test_everything_a_user_chose_is_escaped(digits, tmp_path):
    run = tmp_path / '<script>x & "y"'
    shutil.copytree(digits, run)
    write_report(run, out=tmp_path / "r.html", n=N, command="driftfield report '<img src=x>'")
    found = page(tmp_path / "r.html")
    assert "script" not in found.tags
    assert '<script>x & "y"' in found.words
    assert all(i["src"].startswith("data:") for i in found.images)


def test_a_proposal_on_record_is_shown(digits, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    (run / "proposal.json").write_text(
        json.dumps({"is": "x:P", "D": 64.0, "reasons": {"D": "a reason <b>"}, "facts": {"is": "x:F", "kind": "image"}})
    )
    write_report(run, out=tmp_path / "r.html", n=N)
    assert "D 64 a reason <b>" in page(tmp_path / "r.html").words
    (run / "proposal.json").write_text("{")
    with pytest.raises(ValueError, match=r"proposal.json is damaged"):
        write_report(run, out=tmp_path / "s.html", n=N)


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"out": "r.txt"}, ValueError, "ends in .html"),
        ({"out": "folder.html"}, ValueError, "is a folder"),
        ({"out": "file/r.html"}, OSError, "cannot write into"),
        ({"figures": "file/figures"}, OSError, "cannot write into"),
        ({"n": 3}, ValueError, "at least 16 samples, got n=3"),
        ({"seed": -1}, ValueError, "a seed"),
        ({"device": "tpu9"}, ValueError, "no device 'tpu9'"),
    ],
)
def test_mistakes_get_one_sentence_and_leave_nothing(options, kind, sentence, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(kind, match=re.escape(sentence)):
        write_report(digits, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.html"]


def test_runs_that_are_not_there(digits, tmp_path):
    (tmp_path / "empty").mkdir()
    for run in ("nowhere", tmp_path / "empty"):
        with pytest.raises(FileNotFoundError, match="no weights at"):
            write_report([digits, run], out=tmp_path / "r.html")
    with pytest.raises(ValueError, match="given twice"):
        write_report([digits, str(digits) + "/"], out=tmp_path / "r.html")
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], out=tmp_path / "r.html")


def test_runs_are_called_by_what_tells_them_apart(digits, tmp_path):
    for name in ("one/run", "two/run"):
        shutil.copytree(digits, tmp_path / name)
    assert [s.name for s in subjects([tmp_path / "one/run", tmp_path / "two/run", digits])] == [
        "one/run",
        "two/run",
        f"{digits.parent.name}/pfgmpp",
    ]


def test_nearest_items_are_those_of_all_distances(rng):
    """Against every distance at once, whatever the parts; a copy is at 0 exactly, even far from the origin."""
    items = 1e3 + torch.randn(50, 2, 3, generator=rng)
    points = torch.cat((items[[7, 30]], 1e3 + torch.randn(4, 2, 3, generator=rng)))
    extract = lambda x: x.flatten(1)
    pairs = [(part, extract(part)) for part in torch.split(items, 13)]
    found, distances = measure.nearest(extract(points), pairs, 3)
    every = (points[:, None].double() - items.double()).flatten(2).norm(dim=2)
    want, index = every.topk(3, largest=False)
    torch.testing.assert_close(distances, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, items[index])
    assert distances[0, 0] == distances[1, 0] == 0
    few, _ = measure.nearest(extract(points), [(items[:2], extract(items[:2]))], 3)
    assert few.shape == (6, 2, 2, 3)


def test_the_way_ends_at_the_samples_shown(digits, points):
    """The last states are the first samples, one of each class, and the noise level falls to 0."""
    (subject,) = subjects([digits])
    shown, labels = measure.shown(subject, 3)
    way = measure.way(subject, 3)
    torch.testing.assert_close(way.states[-1], shown[::8][:3], atol=1e-5, rtol=0)
    assert labels is not None
    assert labels[::8].tolist() == list(range(10))
    assert way.levels[-1] == 0
    assert np.all(np.diff(way.levels) < 0)
    (toy,) = subjects([points])
    way = measure.way(toy, 0)
    assert way.levels[0] == np.inf  # a rectified flow begins without signal
    torch.testing.assert_close(way.states[-1], measure.shown(toy, 0)[0][:150], atol=1e-5, rtol=0)


def test_states_are_scaled_to_the_spread_of_the_data(rng):
    """`x = y + s n` in many dimensions has spread `(1 + s^2 / sigma_data^2)^(1/2)` times the data's, to 1 %: the mean
    square of 4e5 normal draws is known to `(2 / 4e5)^(1/2) = 0.22 %`, its root to half of that."""
    y = 0.5 * torch.randn(1, 400_000, generator=rng)
    x = y + 3 * torch.randn(1, 400_000, generator=rng)
    assert measure._spread(x, y, 0.5) == pytest.approx((1 + 36) ** 0.5, rel=0.01)


def test_the_number_of_samples_is_chosen_once(digits):
    (subject,) = subjects([digits])
    n = quality.choose(subject)
    assert 64 <= n <= 1000
    assert quality.choose(subject) == n
    half = replace(subject, log=[])  # another opening of the same weights
    assert quality.choose(half) == n
    points = quality.points(subject)
    assert quality.work(subject, 10) == 10 * (sum(p[2] for p in points) + subject.recipe.sampling.nfe)
