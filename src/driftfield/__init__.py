"""Physics-inspired generative models: trained from data, sampled in few evaluations, scored honestly.

Names are imported when first used, so that `import driftfield` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "process.discrete": ["DiscreteVP"],
    "process.gaussian": ["EDM", "VE", "VP", "Rectified", "SubVP"],
    "process.heat": ["Blur"],
    "process.helmholtz": ["Helmholtz"],
    "process.langevin": ["CLD"],
    "process.poisson": ["PFGM", "PFGMPP", "PublishedJump"],
    "process.stable": ["Fractional"],
    "process.subordinated": ["Subordinated"],
    "process.yukawa": ["Hyperbolic", "MixedDiffusionPoisson", "Yukawa"],
    "process.screened": ["ScreenedPoisson"],
    "process.wave": ["DissipativeWave"],
    "network.mlp": ["MLP"],
    "network.unet": ["UNet"],
    "network.transformer": ["Transformer"],
    "denoise.preconditioned": ["Preconditioned"],
    "denoise.empirical": ["Empirical"],
    "denoise.field": ["FieldNetwork"],
    "denoise.mixture": ["Mixture"],
    "denoise.exact": ["Normal", "Point"],
    "adapt.model": ["Adapted", "AtLevel", "from_k_diffusion", "to_k_diffusion"],
    "adapt.diffusers": ["from_diffusers"],
    "adapt.edm": ["from_edm"],
    "guide.cfg": ["CFG"],
    "field.births": ["Births"],
    "field.reverse": ["Reverse"],
    "grid": ["churn", "geometric", "karras", "logistic", "power", "restart", "restarted", "uniform"],
    "solve.adaptive": ["DormandPrince"],
    "solve.base": ["integrate", "sample"],
    "solve.branching": ["Weighted", "branching"],
    "solve.jolted": ["Jolted"],
    "solve.rk": ["RK4", "Euler", "Heun"],
    "solve.exponential": ["DDIM", "DEIS", "GDDIM", "IPNDM", "DPMSolverPP", "Exponential", "UniPC"],
    "solve.rho": ["DPMSolver", "RhoRK"],
    "solve.stochastic": ["Ancestral", "EulerMaruyama", "Langevin", "ReverseSDE"],
    "generation": ["generate", "plan", "plan_restart"],
    "search": ["search_grid"],
    "objective.matching": ["Matching"],
    "objective.poisson": ["PoissonField"],
    "objective.stable": ["StableTarget"],
    "objective.laws": ["LogNormal"],
    "objective.rates": ["RateMatching"],
    "latent": ["decode", "encode", "interpolate", "temper"],
    "likelihood": ["bits_per_dim", "dequantized", "log_prob"],
    "bridge.scheduler": ["DriftfieldScheduler"],
    "bridge.pipeline": ["to_diffusers"],
    "bridge.text": ["text_to_image"],
    "metric.evaluate": ["evaluate"],
    "recipe": ["Recipe"],
    "data.audio": ["Audio"],
    "data.autoencoder": ["Autoencoder"],
    "data.latent": ["Latent"],
    "deploy.export": ["export", "load_exported"],
    "deploy.quantize": ["quantized"],
    "report.page": ["write_report"],
    "report.robustness": ["robustness"],
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
