"""The record of scores: flat, kept by JSON, readable."""

import json

from driftfield.metric import scores as module
from driftfield.metric.scores import Scores, library_version

SCORES = Scores(
    {"frechet": 1.25, "copying_p": 0.5, "frechet[a b]": 2.0, "frechet[c]": 3.0, "kid[c]": 0.1},
    {"frechet": 0.0625, "frechet[c]": 0.5},
    {"features": "raw", "n": 8, "sample_seed": None, "bandwidth": 1 / 3},
)


def test_everything_in_one_flat_dictionary():
    plain = json.loads(json.dumps(SCORES.as_dict()))
    assert plain == {
        **SCORES.values,
        "frechet_error": 0.0625,
        "frechet[c]_error": 0.5,
        "features": "raw",
        "n": 8,
        "sample_seed": None,
        "bandwidth": 1 / 3,
    }


def test_the_table_by_eye():
    assert str(SCORES).splitlines() == [
        "frechet    1.25 +- 0.062",
        "copying_p  0.5",
        "",
        "class  frechet   kid",
        "a b    2",
        "c      3 +- 0.5  0.1",
        "features raw; n 8; bandwidth 0.333333",
    ]


def test_an_uninstalled_copy_says_so(monkeypatch):
    def absent(name):
        raise module.PackageNotFoundError(name)

    assert library_version()
    monkeypatch.setattr(module, "version", absent)
    assert library_version() == "not installed"
