"""Frozen values to JSON and back; fields changed by name; nothing untrusted imported."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

import driftfield as df
from driftfield.data.digits import Digits
from driftfield.objective.augment import Augment
from driftfield.objective.laws import Balanced, LogNormal, LogUniform, UniformTime
from driftfield.objective.matching import Matching
from driftfield.optim import AdamW, Muon
from driftfield.plain import Build, from_plain, locate, to_plain
from driftfield.process.base import Isotropic
from driftfield.recipe import Recipe, Training, differing
from driftfield.recipes import RECIPES
from driftfield.settings import choices, override, read

RECIPE = Recipe(
    Digits(),
    Build("driftfield.network.unet:UNet", {"width": 32, "multipliers": (1, 2)}),
    Matching(df.PFGMPP(D=float("inf")), times=LogUniform(), augment=Augment()),
    training=Training(steps=5, optimizer=Muon()),
)


@pytest.mark.parametrize("recipe", [RECIPE, *(make() for make in RECIPES.values())])
def test_round_trip(recipe):
    text = recipe.to_json()
    assert Recipe.from_json(text) == recipe
    assert "Infinity" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("objective.process.D", "64", 64.0),
        ("objective.process.D", "inf", float("inf")),
        ("objective.process", "EDM", df.EDM()),
        ("objective.process", "PFGMPP(D=8)", df.PFGMPP(D=8.0)),
        ("objective.process", "PFGMPP(D=inf, span=(0.01, 50))", df.PFGMPP(D=float("inf"), span=(0.01, 50.0))),
        ("objective.process", "driftfield.process.gaussian:VP", df.VP()),
        ("objective.process.span", "0.01, 50", (0.01, 50.0)),
        ("objective.times", "UniformTime", UniformTime()),
        ("objective.times", "LogNormal(mean=-0.5, std=1)", LogNormal(-0.5, 1.0)),
        ("objective.augment", "none", None),
        ("training.steps", "100", 100),
        ("training.clip", "none", None),
        ("training.compile", "true", True),
        ("training.optimizer", "AdamW(lr=2e-4)", AdamW(lr=2e-4)),
        ("training.optimizer.lr", "2e-4", 2e-4),
        ("scaling", "vp", "vp"),
    ],
)
def test_fields_are_set_by_name(path, text, value):
    changed = RECIPE.with_fields([f"{path}={text}"])
    for part in path.split("."):
        changed = getattr(changed, part)
    assert changed == value
    assert type(changed) is type(value)


def test_network_options_are_fields():
    assert RECIPE.with_fields(["network.width=48", "network.multipliers=1,2,3"]).network.options == {
        "width": 48,
        "multipliers": (1, 2, 3),
    }


def test_a_missing_part_is_made_when_its_field_is_set():
    bare = override(RECIPE, "objective.augment", "none")
    assert override(bare, "objective.augment.probability", "0.3").objective.augment == Augment(probability=0.3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("objective.proces.D=64", "Matching has no field 'proces'; it has process, times"),
        ("network.widht=3", "UNet has no field 'widht'; it has shape, width"),
        ("training.steps=many", "steps takes int or none, got 'many'"),
        ("objective.process=PFGMP", "did you mean 'PFGMPP'"),
        ("objective.process=PFGMPP(E=3)", "PFGMPP has no field 'E'; it has D, span"),
        ("objective.process=PFGMPP(D=-3)", "D"),
        ("objective.process=os:getcwd", "not a"),
        ("objective.process=PFGMPP(64, (1, 2), 3)", "should read like"),
        ("data=Latent", "made from its name alone"),
        ("objective.process=no.such:Thing", "cannot import"),
        ("training.compile=perhaps", "compile takes bool"),
        ("training.steps", "field=value"),
        ("training.batch=10", None),
        ("training.steps.more=1", "plain value"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    if message is None:
        assert RECIPE.with_fields([setting]).training.batch == 10
        return
    with pytest.raises(ValueError, match=message):
        RECIPE.with_fields([setting])


def test_reading_imports_only_what_is_trusted():
    evil = to_plain(RECIPE) | {"data": {"is": "os:system", "command": "true"}}
    with pytest.raises(ValueError, match="outside the trusted modules"):
        from_plain(evil)
    with pytest.raises(ValueError, match="outside the trusted modules"):
        from_plain(
            to_plain(RECIPE) | {"network": {"is": "driftfield.plain:Build", "target": "subprocess:run", "options": {}}}
        )
    with pytest.raises(ValueError, match="outside the trusted"):
        locate("driftfieldevil:x", ())
    for target in ("driftfield.plain:locate", "driftfield.report.draw:draw", "driftfield.files:write"):
        with pytest.raises(ValueError, match="not a network"):
            from_plain({"is": "driftfield.plain:Build", "target": target, "options": {"path": "os:system"}})
    with pytest.raises(ValueError, match="leads outside the trusted modules"):
        from_plain({"is": "driftfield.report.draw:Path"})  # somebody else's class, reached through a module of ours
    with pytest.raises(ValueError, match="not a dataclass"):
        from_plain({"is": "driftfield.plain:locate", "path": "os:system"})
    with pytest.raises(ValueError, match="Matching has no field 'proces'"):
        from_plain({"is": "driftfield.objective.matching:Matching", "proces": 1})


def test_what_cannot_be_written_is_refused():
    @dataclass(frozen=True)
    class Local:
        a: int = 1

    with pytest.raises(TypeError, match="inside a function"):
        to_plain(Local())
    with pytest.raises(TypeError, match="function cannot be written"):
        to_plain({"weight": lambda t: t})


def test_choices_are_the_folder():
    assert {"EDM", "VP", "VE", "SubVP", "Rectified", "PFGMPP", "PFGM"} <= {k.__name__ for k in choices(Isotropic)}
    assert read(float, "inf", "x") == float("inf")


def test_differences_are_named():
    other = RECIPE.with_fields(["objective.process.D=64", "network.width=48", "training.optimizer=AdamW"])
    lines = differing(to_plain(RECIPE), to_plain(other))
    assert lines == [
        "network.options.width (32 there, 48 asked)",
        "objective.process.D (inf there, 64.0 asked)",
        "training.optimizer (Muon there, AdamW asked)",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"steps": 5, "minutes": 1.0},
        {"minutes": 0.0},
        {"batch": 10, "accumulate": 3},
        {"precision": "half"},
        {"clip": 0.0},
        {"decay": 2},
    ],
)
def test_bad_training_is_refused(fields):
    with pytest.raises(ValueError, match=r".+"):
        Training(**fields)


def test_resolving_fills_in_what_the_data_say():
    info = Digits().load().info
    made = RECIPES["digits"]().resolved(info)
    assert made.sigma_data == info.std
    assert made.objective.weight == Balanced(info.std)
    assert made.denoiser().network is not None
    with pytest.raises(ValueError, match="has not met its data"):
        RECIPE.denoiser()
