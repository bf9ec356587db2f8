"""An exported file is the denoiser: in every runtime, at every noise level, for any number of rows."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2, f, kstest
from torch import nn

import driftfield as df
from driftfield.deploy import export as module
from driftfield.deploy.export import export, load_exported
from driftfield.plain import Build
from driftfield.rng import integers, normal, seeded

from .common import recipe, stirred

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
LEVELS = torch.tensor([0.002, 0.01, 0.1, 0.5, 2.0, 20.0, 80.0], dtype=torch.float64)


def example() -> object:
    """The sampler that examples/ shows, which knows nothing of driftfield."""
    path = Path(__file__).parents[2] / "examples" / "sample_onnx.py"
    spec = importlib.util.spec_from_file_location("sample_onnx", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("name", ["mlp", pytest.param("unet", marks=pytest.mark.slow), "transformer"])
def test_the_file_is_the_denoiser(name, suffix, tmp_path):
    """Against the denoiser in float64, row by row at its own level. float32 rounds each operation by 6e-8 of its
    result; a path through these networks has some 40, and the worst of some thousand outputs is four deviations out:
    4 sqrt(40) 6e-8 = 1.5e-6 of the terms' size. 1e-5 leaves room for sums that cancel inside."""
    made = recipe(name)
    denoiser = stirred(made)
    told = export(denoiser, made, tmp_path / f"m{suffix}")
    assert told.error < 1e-5
    process, again, kept = load_exported(told.path)
    assert (process, kept) == (made.objective.process, made)
    exact = deepcopy(denoiser).double()
    classes = len(made.info.classes)
    assert told.inputs == (("x", "t", "label") if classes else ("x", "t"))
    for label in [None, *([integers(LEVELS, classes, seeded(1))] if classes else [])]:
        x = normal(torch.empty(7, *made.info.shape, dtype=torch.float64), seeded(2))
        x = x * (0.25 + LEVELS.square()).sqrt().reshape(-1, *[1] * (x.ndim - 1))
        y = exact(x, LEVELS, label)
        skip = exact.coefficients(LEVELS)[0].reshape(-1, *[1] * (x.ndim - 1)) * x
        size = skip.abs().flatten(1).amax(1) + (y - skip).abs().flatten(1).amax(1)
        error = (again(x.float(), LEVELS.float(), label).double() - y).abs().flatten(1).amax(1) / size
        assert error.max() < 1e-5, (label, error)
        one = again(x[:1].float(), LEVELS[0], None if label is None else label[:1])
        torch.testing.assert_close(one, y[:1].float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_the_preconditioning_is_exact_at_every_level(suffix, tmp_path):
    """A fresh network returns 0, so `y = c_skip x`: at most 6 roundings of float32, 6 * 2^-24 = 3.6e-7 of it."""
    made = recipe("mlp")
    export(made.denoiser(), made, tmp_path / f"m{suffix}", batch=7)
    _, program, _ = load_exported(tmp_path / f"m{suffix}")
    x = normal(torch.empty(7, 5), seeded(4))
    want = x.double() * (0.25 / (LEVELS.float().double().square() + 0.25))[:, None]
    error = ((program(x, LEVELS) - want) / want).abs()
    assert error.max() < 3.6e-7


@pytest.mark.parametrize("process", [df.EDM(), df.PFGMPP(D=8.0)])
def test_numpy_and_onnxruntime_alone_draw_the_same_samples(process, tmp_path):
    """The same start down the same grid: only float32 inside the network differs, 35 times over; 1e-4 of the data's
    scale is the library's own bound for samples whose arithmetic is split differently."""
    made = recipe("mlp" if isinstance(process, df.EDM) else "series", process)
    denoiser, shape = stirred(made), made.info.shape
    export(denoiser, made, tmp_path / "m.onnx")
    numpy_alone = example()
    denoise, notes = numpy_alone.opened(str(tmp_path / "m.onnx"))
    x = process.prior((6, *shape), seeded(5), torch.float64)
    label = torch.tensor([0, 1, -1, 0, 1, -1]) if made.info.classes else None
    theirs = numpy_alone.sample(denoise, notes, x.numpy(), label=None if label is None else label.numpy())
    ours = df.sample(df.Reverse(process, denoiser, label), x, df.karras(process, 18), df.Heun(), seeded(0))
    assert np.abs(theirs - ours.numpy()).max() < 1e-4
    noise = numpy_alone.start(notes, 2000, np.random.default_rng(6))
    N = math.prod(shape)
    radius = (noise.reshape(2000, -1) ** 2).sum(1) / 80.0**2
    law = chi2(N) if isinstance(process, df.EDM) else f(N, process.D, scale=N)  # Student's t has Fisher's F
    assert kstest(radius, law.cdf).pvalue > 1e-3  # one in a thousand seeds would fail


def test_the_file_says_what_it_is(tmp_path):
    made = replace(recipe("mlp"), scaling="edm")
    export(stirred(made), made, tmp_path / "m.onnx", opset=18)
    import onnx

    model = onnx.load(tmp_path / "m.onnx")
    notes = json.loads({p.key: p.value for p in model.metadata_props}["driftfield"])
    assert notes["process"] == {"is": "driftfield.process.poisson:PFGMPP", "D": 128.0, "span": [0.002, 80.0]}
    assert notes["sigma_data"] == 0.5
    assert notes["driftfield"] == df.__version__
    assert list(notes["inputs"]) == ["x", "t"]
    assert [(i.name, i.type.tensor_type.shape.dim[0].dim_param) for i in model.graph.input] == [
        ("x", "batch"),
        ("t", "batch"),
    ]
    assert max(o.version for o in model.opset_import) == 18
    for text in (str(Path.home()).encode(), b"preconditioned.py", b"site-packages"):  # whose machine it was made on
        assert text not in (tmp_path / "m.onnx").read_bytes()


class Halting(nn.Module):
    """A network that looks at its numbers, which no traced program can."""

    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(*shape, *shape)

    def forward(self, x, noise, cond=None):
        return self.layer(x) if float(x.sum()) > 0 else x


def test_what_cannot_be_exported_leaves_nothing_behind(tmp_path, monkeypatch):
    made = recipe("mlp")
    denoiser = stirred(made)
    with pytest.raises(ValueError, match=r"ends in .pt2 \(torch.export\) or .onnx, got .*m.bin"):
        export(denoiser, made, tmp_path / "m.bin")
    with pytest.raises(ValueError, match="batch is the fixed number of rows"):
        export(denoiser, made, tmp_path / "m.onnx", batch=0)
    with pytest.raises(ValueError, match="opset is a version of ONNX"):
        export(denoiser, made, tmp_path / "m.pt2", opset=18)
    with pytest.raises(ValueError, match="has not met its data"):
        export(denoiser, replace(made, info=None), tmp_path / "m.onnx")
    own = replace(made, network=Build("tests.deploy.test_export:Halting"))
    with pytest.raises(ValueError, match=r"Halting cannot be exported: torch\.export says"):
        export(own.denoiser(), own, tmp_path / "m.pt2")
    monkeypatch.setattr(module, "TOLERANCE", -math.inf)
    with pytest.raises(ValueError, match="differs from the denoiser by"):
        export(denoiser, made, tmp_path / "m.pt2")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'driftfield\[export\]'"):
        export(denoiser, made, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_no_exported_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no exported file"):
        load_exported(tmp_path / "none.onnx")
    for name in ("torn.onnx", "torn.pt2"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not one")
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            load_exported(tmp_path / name)
    made = recipe("mlp")
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "other.pt2")
    with pytest.raises(ValueError, match="was not exported by driftfield"):
        load_exported(tmp_path / "other.pt2")
    export(stirred(made), made, tmp_path / "m.pt2", batch=2)
    _, program, _ = load_exported(tmp_path / "m.pt2")
    with pytest.raises(ValueError, match="takes no condition"):
        program(torch.zeros(2, 5), torch.ones(2), torch.zeros(2))
