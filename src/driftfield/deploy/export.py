"""A trained denoiser as one file that other programs run: a `torch.export` program or an ONNX graph.

The preconditioning is inside, so that `y = program(x, t)` is the denoiser itself and a sampler needs nothing else.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoise.base import Denoiser
from ..denoise.learned import Learned
from ..files import write_bytes
from ..plain import from_plain, to_plain
from ..process.base import Isotropic, Process
from ..recipe import Recipe
from ..rng import integers, normal, seeded, uniform
from .quiet import quiet

SUFFIXES = (".pt2", ".onnx")
NOTES = "driftfield"  # the key of the notes in a file
TOLERANCE = 1e-4  # of the two terms of a denoiser's output: float32 rounding leaves 1e-6 or so
_FOLD = 64  # numbers: sizes and axes are folded into constants, quantised weights not turned back into floats
_LOGS = ("torch.onnx", "torch.utils._pytree")
_INPUTS = {
    "x": "float32 (batch, *shape): the noisy state, in the model's units; the user's are shift + scale * x",
    "t": "float32 (batch,): the time of the process, for each row",
    "label": "int64 (batch,): the class, -1 for none",
}
_OUTPUT = "float32 (batch, *shape): the estimate of the clean x_0 given x at time t"


@dataclass(frozen=True)
class Exported:
    """What was written. `error` is the largest difference from the denoiser on random inputs.

    It is relative to the sum of the largest absolute values of the two terms of the output, `c_skip x` and
    `c_out network(...)`, in the same row.
    """

    path: Path
    bytes: int
    inputs: tuple[str, ...]
    error: float


def export(
    denoiser: Learned,
    recipe: Recipe,
    path: str | Path,
    *,
    batch: int | None = None,
    opset: int | None = None,
) -> Exported:
    """Write `denoiser`, trained by `recipe`, to a `.pt2` or `.onnx` file that computes `y` from `x`, `t` (and `label`).

    Inputs and output are float32 (labels int64), with any number of rows unless `batch` fixes it; where the recipe has
    classes, `label` is the third input. `opset` is ONNX's, the exporter's own by default. The arithmetic is float32
    throughout, also for a network trained in bfloat16. The notes inside (metadata `driftfield` in ONNX, the extra file
    `driftfield.json` in `.pt2`) hold the recipe, the process, `sigma_data`, the shape, the classes, the meaning of the
    inputs and driftfield's version, as JSON. The bytes are opened again and compared with the denoiser on random
    inputs over the whole span of times before the file takes its name.
    Raises: ValueError for another suffix, a recipe that has not met its data, options that do not go together, a
            network that cannot be exported, and a file that does not agree with the denoiser (nothing is left behind);
            ImportError without onnx, onnxscript or onnxruntime.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"an exported file ends in .pt2 (torch.export) or .onnx, got {path}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch is the fixed number of rows, at least 1, or left out for any number; got {batch}")
    if opset is not None and path.suffix != ".onnx":
        raise ValueError("opset is a version of ONNX and means nothing to a .pt2 file")
    if recipe.info is None:
        raise ValueError("this recipe has not met its data yet; call resolved(info) first")
    if not isinstance(recipe.objective.process, Isotropic):
        raise ValueError(f"only models of isotropic processes are exported, not of {recipe.objective.process}")
    model = deepcopy(denoiser).cpu().float().eval().requires_grad_(False)
    model.autocast = None
    notes = _notes(recipe, batch)
    example = _example(recipe, 2 if batch is None else batch, 0)
    program = _traced(model, example, batch)
    blob = _pt2(program, notes) if path.suffix == ".pt2" else _onnx(program, notes, len(example), opset)
    error = difference(_runner(blob, path.suffix), model, recipe, (1, 2, 5) if batch is None else (batch,))
    if not error <= TOLERANCE:
        raise ValueError(
            f"the exported program differs from the denoiser by {error:.1e} of its output (at most {TOLERANCE:g} is "
            f"rounding), so {path} was not written; report it, or export --to the other format"
        )
    write_bytes(path, blob)
    return Exported(path, len(blob), tuple(notes["inputs"]), error)


def load_exported(path: str | Path, trust: Sequence[str] = ()) -> tuple[Process, Denoiser, Recipe]:
    """The process, the denoiser and the recipe of a file that `export` wrote, as `load` gives those of a run.

    The denoiser runs the exported program, on the CPU and in float32, and takes a time `()` or `(B,)`; a program with
    a fixed batch takes no other. A `.pt2` file is opened by `torch.export.load`: as with any program, open only what
    you trust. Raises: FileNotFoundError; ValueError for a file that is not ours; ImportError without onnxruntime.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no exported file {path}")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"an exported file ends in .pt2 (torch.export) or .onnx, got {path}")
    blob = path.read_bytes()
    if path.suffix == ".onnx":
        _onnxruntime()
    try:
        text, run = _notes_in(blob, path.suffix), _runner(blob, path.suffix)
    except Exception as error:  # the two runtimes share no family of errors
        raise ValueError(f"{path} is damaged, or is no {path.suffix} file ({type(error).__name__})") from error
    if not text:
        raise ValueError(f"{path} was not exported by driftfield: it holds no recipe")
    notes = json.loads(text)
    recipe: Any = from_plain(notes["recipe"], trust)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{path} holds a {type(recipe).__name__}, not a recipe")
    return recipe.objective.process, Program(run, bool(notes["classes"])), recipe


class Program:
    """An exported file as a denoiser: `(x, t, cond) -> y`."""

    def __init__(self, run: Any, labelled: bool):
        """`run` takes the inputs in order; `labelled` says that labels are the third."""
        self._run, self._labelled = run, labelled

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """`x` is `(B, *shape)`, `t` is `()` or `(B,)`, `cond` labels `(B,)` or None; the result is like `x`."""
        rows = [x.float().cpu(), t.to(device="cpu", dtype=torch.float32).expand(len(x))]
        if self._labelled:
            rows.append(torch.full((len(x),), -1) if cond is None else cond.to("cpu", torch.int64).expand(len(x)))
        elif cond is not None:
            raise ValueError("this program was exported from a model without classes, so it takes no condition")
        y: Tensor = self._run(*rows)
        return y.to(x)


def _notes(recipe: Recipe, batch: int | None) -> dict[str, Any]:
    from .. import __version__

    info = recipe.info
    assert info is not None
    inputs = {name: what for name, what in _INPUTS.items() if name != "label" or info.classes}
    return {
        "driftfield": __version__,
        "process": to_plain(recipe.objective.process),
        "sigma_data": recipe.sigma_data,
        "shape": list(info.shape),
        "shift": info.shift,
        "scale": info.scale,
        "classes": list(info.classes),
        "batch": batch,
        "inputs": inputs,
        "output": _OUTPUT,
        "recipe": to_plain(recipe),
    }


def _example(recipe: Recipe, rows: int, seed: int) -> tuple[Tensor, ...]:
    """Random inputs: data of the recipe's deviation, noised to times even in log level over the process's span."""
    info, process = recipe.info, recipe.objective.process
    assert info is not None
    rng = seeded(seed, rows)
    clean = float(recipe.sigma_data or 1.0) * normal(torch.empty(rows, *info.shape), rng)
    ends = process.level(torch.tensor(process.span, dtype=torch.float64)).clamp(1e-3, 1e3).log()
    t = process.time((ends[0] + (ends[1] - ends[0]) * uniform(torch.empty(rows, dtype=torch.float64), rng)).exp())
    x = process.perturb(clean, t.float(), rng).float()
    if not info.classes:
        return x, t.float()
    return x, t.float(), integers(torch.empty(rows), len(info.classes) + 1, rng) - 1


def _traced(model: Learned, example: tuple[Tensor, ...], batch: int | None) -> torch.export.ExportedProgram:
    rows = {} if batch is not None else {0: torch.export.Dim("batch", min=1)}
    names = ("x", "t", "cond")[: len(example)]
    try:
        with quiet(*_LOGS):  # strict, because `len(x)` becomes a number when merely run
            program = torch.export.export(model, example, dynamic_shapes=dict.fromkeys(names, rows), strict=True)
    except Exception as error:  # whatever a user's network does that cannot be traced
        first = " ".join(str(error).split("\n")[0].split())
        raise ValueError(f"{type(model.network).__name__} cannot be exported: torch.export says {first}") from error
    for node in program.graph.nodes:  # where each operation came from: most of a small file, and its author's business
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(key, None)
    return program


def _pt2(program: torch.export.ExportedProgram, notes: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    with quiet(*_LOGS):
        torch.export.save(program, file, extra_files={f"{NOTES}.json": json.dumps(notes)})
    return file.getvalue()


def _onnx(program: torch.export.ExportedProgram, notes: dict[str, Any], inputs: int, opset: int | None) -> bytes:
    _onnxruntime()
    try:
        import onnx  # noqa: F401
        from onnxscript.optimizer import optimize
    except ImportError:
        raise ImportError(_MISSING) from None
    names = list(_INPUTS)[:inputs]
    try:
        with quiet(*_LOGS):
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=["y"],
                opset_version=opset,
                optimize=False,
            )
            assert made is not None
            optimize(made.model, input_size_limit=_FOLD, output_size_limit=_FOLD)
            for node in (*made.model.graph.all_nodes(), *(n for f in made.model.functions.values() for n in f)):
                node.metadata_props.clear()
            made.rename_axes(dict.fromkeys(_axes(made), "batch"))
            proto = made.model_proto
    except Exception as error:
        first = " ".join(str(error).split("\n")[0].split())
        raise ValueError(f"the network cannot be written as ONNX: {first}") from error
    entry = proto.metadata_props.add()
    entry.key, entry.value = NOTES, json.dumps(notes)
    blob: bytes = proto.SerializeToString()
    return blob


def _axes(made: Any) -> list[str]:
    return sorted({str(n) for value in made.model.graph.inputs for n in value.shape or () if not isinstance(n, int)})


_MISSING = "ONNX files need onnx, onnxscript and onnxruntime: pip install 'driftfield[export]'"


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(_MISSING) from None
    return onnxruntime


def _session(blob: bytes) -> Any:
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


def _runner(blob: bytes, suffix: str) -> Any:
    """The program in `blob` as a function from its inputs, tensors, to `y`."""
    if suffix == ".pt2":
        with quiet(*_LOGS):
            return torch.export.load(io.BytesIO(blob)).module()
    session = _session(blob)
    names = [i.name for i in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: value.detach().cpu().numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def _notes_in(blob: bytes, suffix: str) -> str:
    if suffix == ".pt2":
        extra = {f"{NOTES}.json": ""}
        with quiet(*_LOGS):
            torch.export.load(io.BytesIO(blob), extra_files=extra)
        return extra[f"{NOTES}.json"]
    return str(_session(blob).get_modelmeta().custom_metadata_map.get(NOTES, ""))


@torch.no_grad()
def difference(run: Any, model: Learned, recipe: Recipe, sizes: Sequence[int] = (1, 2, 5)) -> float:
    """The largest difference of `run(x, t, *label)` from `model` on random inputs, relative as in `Exported`.

    The inputs are noised data at times even in log level over the process's whole span, four batches of each size.
    """
    worst = 0.0
    for seed, rows in enumerate(tuple(sizes) * 4, 1):
        x, t, *label = _example(recipe, rows, seed)
        given, y = run(x, t, *label), model(x, t, *label)
        skip = model.skip(x, t.double())
        size = skip.abs().flatten(1).amax(1) + (y - skip).abs().flatten(1).amax(1)
        worst = max(worst, float(((given - y).abs().flatten(1).amax(1) / size).max()))
    return worst
