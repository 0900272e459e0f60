"""Specs of `wiberg fit`: every problem is named with its key and what is allowed, all of them at once."""

import json
from pathlib import Path

import pytest
import wiberg as wb
from wiberg.learn.optimiser import from_description as optimiser_of
from wiberg.learn.schedule import KINDS, from_description
from wiberg.learn.shell.spec import KEYS, REQUIRED, explained, markdown, read_spec, spec_of

SPEC = """
energy = "m.py:energy"
loss = "m.py:loss"
weights = {sigma = 2.0, scale = {value = 1.0, scale = "log"}}
[data]
train = "train.npz"
[learning]
steps = 10
[optimiser]
learning_rate = 1e-3
"""


def test_a_spec_has_the_values_given_and_defaults_for_the_rest():
    spec = spec_of(SPEC, "fit.toml")
    assert spec["energy"] == "m.py:energy" and spec["learning.steps"] == 10
    assert spec["weights"] == {"sigma": 2.0, "scale": {"value": 1.0, "scale": "log"}}
    assert spec["optimiser"] == {"kind": "SGD", "learning_rate": 1e-3}
    assert spec["learning.batch_size"] == 32 and spec["learning.shuffle"] is True and spec["learning.damping"] == 0.1
    assert spec["minimise.bounds"] is None and spec["start"] == {}


@pytest.mark.parametrize(("old", "new", "pieces"), [
    ("energy =", "enregy =", ["enregy: no such key; did you mean 'energy'?", "energy: is missing"]),
    ("steps = 10", "stpes = 10", ["learning.stpes: no such key; did you mean 'steps'?", "learning.steps: is missing"]),
    ("steps = 10", 'steps = "10"', ["learning.steps: must be an integer >= 0; got '10'"]),
    ("steps = 10", "steps = -1", ["learning.steps: must be an integer >= 0; got -1"]),
    ("steps = 10", "steps = true", ["learning.steps: must be an integer >= 0; got True"]),
    ("steps = 10", "steps = 1.5", ["learning.steps", "1.5"]),
    ("steps = 10", "steps = 10\nbatch_size = 0", ["learning.batch_size: must be an integer >= 1; got 0"]),
    ("steps = 10", "steps = 10\ndamping = nan", ["learning.damping: must be a finite number >= 0,", "got nan"]),
    ("steps = 10", "steps = 10\ndamping = -0.1", ["learning.damping: must be a finite number >= 0,", "got -0.1"]),
    ("steps = 10", 'steps = 10\nunconverged = "zeros"', ["one of zero, nan, use, raise", "did you mean 'zero'?"]),
    ("steps = 10", "steps = 10\nshuffle = 1", ["learning.shuffle: must be true or false; got 1"]),
    ('train = "train.npz"', "train = []", ["data.train: must be text or a list of texts; got []"]),
    ('train = "train.npz"', 'train = ["a", 3]', ["data.train", "['a', 3]"]),
    ("learning_rate = 1e-3", "", ["optimiser.learning_rate: is missing; SGD needs it"]),
    ("learning_rate", "momentun = 0.5\nlearning_rate", ["SGD has no such argument; did you mean 'momentum'?"]),
    ("learning_rate", 'kind = "SDG"\nlearning_rate', ["optimiser.kind: must be one of SGD", "did you mean 'SGD'?"]),
    ("sigma = 2.0", 'sigma = "a"', ["weights.sigma: must be a number, an array or a table; got 'a'"]),
    ("sigma = 2.0", "sigma = {vlaue = 2.0}", ["did you mean 'value'?", "weights.sigma.value: is missing"]),
    ("loss =", "minimise = 3\nloss =", ["minimise: must be a table with the keys method, gtol"]),
    ("[optimiser]\nlearning_rate = 1e-3", "", ["optimiser.learning_rate: is missing"]),
    ("[data]", "[minimise]\ngtol = 0.0\nmethod = 'newton'\n[data]", ["minimise.gtol: must be a finite number > 0",
                                                                     "minimise.method: must be one of trust-region"]),
    ("[data]", "[minimise]\neliminate = 'z'\n[data]", ["minimise.eliminate: must be a list of texts; got 'z'"]),
])  # fmt: skip
def test_a_bad_spec_is_refused_with_what_is_allowed(old, new, pieces):
    assert old in SPEC
    with pytest.raises(wb.InputError) as caught:
        spec_of(SPEC.replace(old, new, 1), "fit.toml")
    assert str(caught.value).startswith("fit.toml has ")
    for piece in pieces:
        assert piece in str(caught.value)


SCHEDULES = {
    '{kind = "CosineDecay", start = 1.0, steps = 100}': wb.CosineDecay(1.0, 100),
    '{kind = "CosineDecay", start = 1, steps = 100, end = 0.1}': wb.CosineDecay(1.0, 100, end=0.1),
    '{kind = "StepDecay", start = 1.0, every = 10, factor = 0.5}': wb.StepDecay(1.0, 10, 0.5),
    '{kind = "PiecewiseLinear", points = [[0, 1.0], [50, 0.1]]}': wb.PiecewiseLinear({0: 1.0, 50: 0.1}),
    '{kind = "Warmup", then = 0.1, steps = 5}': wb.Warmup(0.1, 5),
    '{kind = "Warmup", then = {kind = "StepDecay", start = 1.0, every = 3}, steps = 5}': wb.Warmup(
        wb.StepDecay(1.0, 3), 5
    ),
}


@pytest.mark.parametrize(("text", "meant"), SCHEDULES.items())
def test_a_damping_may_be_any_schedule(text, meant):
    spec = spec_of(SPEC.replace("steps = 10", f"steps = 10\ndamping = {text}"), "fit.toml")
    made = from_description(spec["learning.damping"])
    assert made == meant
    assert [made.at(step) for step in range(60)] == [meant.at(step) for step in range(60)]
    assert json.loads(json.dumps(spec["learning.damping"])) == spec["learning.damping"]  # a run folder holds it


def test_every_schedule_is_tried_and_explained():
    for kind in KINDS:
        assert any(isinstance(meant, KINDS[kind]) for meant in SCHEDULES.values())
        assert f"{kind}(" in explained()


@pytest.mark.parametrize(("text", "pieces"), [
    ('{kind = "CosinDecay"}', ["learning.damping.kind: must be one of CosineDecay, StepDecay, PiecewiseLinear, Warmup; "
                               "got 'CosinDecay'; did you mean 'CosineDecay'?"]),
    ("{kind = 3}", ["learning.damping.kind: must be one of CosineDecay", "got 3"]),
    ("{start = 1.0}", ["learning.damping.kind: must be one of CosineDecay", "it is missing"]),
    ('{kind = "StepDecay", start = 1.0}', ["learning.damping.every: is missing; StepDecay needs it"]),
    ('{kind = "StepDecay", start = 1.0, evry = 3}', ["evry: StepDecay has no such argument; did you mean 'every'?",
                                                    "learning.damping.every: is missing"]),
    ('{kind = "StepDecay", start = 1.0, every = 0}', ["learning.damping: StepDecay: every must be > 0 (got 0)"]),
    ('{kind = "StepDecay", start = "1", every = 2}', ["learning.damping: StepDecay: start must be a number (got '1'"]),
    ('{kind = "StepDecay", start = {a = 1}, every = 2}', ["learning.damping.start: must be a number; got {'a': 1}"]),
    ('{kind = "StepDecay", start = {kind = "x"}, every = 2}', ["learning.damping.start: must be a number"]),
    ('{kind = "CosineDecay", start = nan, steps = 2}', ["damping: CosineDecay: start must be >= 0 and finite"]),
    ('{kind = "PiecewiseLinear", points = {0 = 1.0}}', ["points: must be pairs, [[step, number], ...]"]),
    ('{kind = "PiecewiseLinear", points = [[5, 1.0], [5, 2.0]]}', ["PiecewiseLinear: steps must be >= 0 and rise"]),
    ('{kind = "PiecewiseLinear", points = 3}', ["PiecewiseLinear: points must be"]),
    ('{kind = "Warmup", steps = 3, then = {kind = "Warmp"}}', ["learning.damping.then.kind: must be one of",
                                                              "did you mean 'Warmup'?"]),
    ('{kind = "Warmup", steps = 3, then = {start = 1.0}}', ["learning.damping.then.kind", "it is missing"]),
    ('{kind = "Warmup", steps = 3, then = "a"}', ["learning.damping: Warmup: then must be a number (got 'a'"]),
    ("[0.1]", ["learning.damping: must be a finite number >= 0, or one of CosineDecay(start, steps, end=0)"]),
])  # fmt: skip
def test_a_schedule_that_does_not_fit_is_refused_by_its_argument(text, pieces):
    with pytest.raises(wb.InputError) as caught:
        spec_of(SPEC.replace("steps = 10", f"steps = 10\ndamping = {text}"), "fit.toml")
    for piece in pieces:
        assert piece in str(caught.value)


def test_a_learning_rate_may_be_a_schedule_too():
    rate = '{kind = "CosineDecay", start = 1e-3, steps = 5}'
    spec = spec_of(SPEC.replace("learning_rate = 1e-3", f"learning_rate = {rate}"), "fit.toml")
    assert optimiser_of(spec["optimiser"]) == wb.SGD(wb.CosineDecay(1e-3, 5))
    with pytest.raises(wb.InputError, match=r"optimiser.learning_rate.steps: is missing; CosineDecay needs it"):
        spec_of(SPEC.replace("1e-3", '{kind = "CosineDecay", start = 1e-3}'), "fit.toml")


def test_all_problems_are_told_at_once():
    text = SPEC.replace("steps = 10", "steps = -1").replace("energy =", "enregy =")
    with pytest.raises(wb.InputError, match="has 3 problems") as caught:
        spec_of(text, "fit.toml")
    assert len(str(caught.value).splitlines()) == 4


def test_what_is_no_toml_is_told_with_the_line(tmp_path):
    with pytest.raises(wb.InputError, match=r"fit.toml is no TOML: .*line 2"):
        spec_of("energy = 'a'\nloss = \nfolder = 'b'", "fit.toml")
    for path in (tmp_path, tmp_path / "missing.toml"):
        with pytest.raises(wb.InputError, match=r"cannot read .*--explain"):
            read_spec(path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(wb.InputError, match="cannot read"):
        read_spec(tmp_path / "binary.toml")


def test_every_key_is_explained():
    text, table = explained(), markdown()
    for key in KEYS:
        assert f"{key.name}\n    {key.meaning}\n" in text and f"| `{key.name}` | " in table
    assert sum(key.default is REQUIRED for key in KEYS) == text.count("required")


def test_the_table_of_the_documents_is_the_declaration():
    page = (Path(wb.__file__).resolve().parent / "docs" / "command.md").read_text()
    assert markdown() in page, "docs/command.md: the table must be what wiberg.learn.shell.spec.markdown() gives"
