"""Physics-inspired generative models: trained from data, sampled in few evaluations, scored honestly.

Names are imported when first used, so that `import driftfield` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "process.gaussian": ["EDM", "VE", "VP", "Rectified", "SubVP"],
    "process.poisson": ["PFGM", "PFGMPP"],
    "network.mlp": ["MLP"],
    "network.unet": ["UNet"],
    "network.transformer": ["Transformer"],
    "denoise.preconditioned": ["Preconditioned"],
    "denoise.empirical": ["Empirical"],
    "denoise.mixture": ["Mixture"],
    "denoise.exact": ["Normal", "Point"],
    "field.reverse": ["Reverse"],
    "grid": ["churn", "geometric", "karras", "power", "restart", "uniform"],
    "solve.base": ["integrate", "sample"],
    "solve.rk": ["RK4", "Euler", "Heun"],
    "generation": ["generate", "plan"],
    "objective.matching": ["Matching"],
    "objective.laws": ["LogNormal"],
    "metric.evaluate": ["evaluate"],
    "recipe": ["Recipe"],
    "data.audio": ["Audio"],
    "data.autoencoder": ["Autoencoder"],
    "data.latent": ["Latent"],
    "deploy.export": ["export", "load_exported"],
    "deploy.quantize": ["quantized"],
    "report.page": ["write_report"],
    "train.fit": ["fit"],
    "train.load": ["load"],
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("driftfield")
    if name not in _WHERE:
        raise AttributeError(f"module 'driftfield' has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
