"""A report as a page: every weight, and nothing that has to be fetched."""

import base64
import os
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import sympy as sp
import wiberg as wb

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tables as lists of rows, pictures, and what would have to be fetched; tags must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.pictures, self.fetched, self.tags = [], [], [], [], set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        values = dict(attributes)
        for name in ("src", "href"):
            if name in values and not values[name].startswith("data:"):
                self.fetched.append(values[name])
        if tag == "img":
            self.pictures.append(values)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def learner(quadratic):
    """Weights of three entries, of which the last does not matter."""
    y, wanted = sp.IndexedBase("y", shape=(2,)), sp.IndexedBase("wanted", shape=(2,))
    loss = wb.Loss((y[0] - wanted[0]) ** 2 + (y[1] - wanted[1]) ** 2, variables=[y], targets=[wanted])
    learner = wb.Learner(quadratic, loss, weights={"w": [0.5, -0.25, 2.0]}, optimiser=wb.SGD(0.05), damping=0.2)
    batch = wb.Batch(
        data={"H": np.eye(2), "C": [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]},
        targets={"wanted": [[1.0, 2.0], [3.0, 2.0]]},
        start={"y": np.zeros((2, 2))},
    )
    learner.fit(batch, steps=30)
    return learner


def test_every_number_that_is_learnt_has_a_row(quadratic, tmp_path):
    y, wanted = sp.IndexedBase("y", shape=(1,)), sp.Symbol("wanted", real=True)
    loss = wb.Loss((y[0] - wanted) ** 2, variables=[y], targets=[wanted])
    learner = wb.Learner(quadratic, loss, weights={"w": np.arange(20.0)})
    learner.report(tmp_path / "report.html")
    table = Page((tmp_path / "report.html").read_text()).tables[0]
    value = table[0].index("value")
    assert [(row[0], row[value]) for row in table[1:]] == [(f"w[{k}]", f"{k}") for k in range(20)]


def test_a_learner_without_steps_has_a_report(spring, t_loss, tmp_path):
    learner = wb.Learner(spring, t_loss, weights={"w": 2.0})
    assert "0 steps" in str(learner.report(tmp_path / "report.html"))
    page = Page((tmp_path / "report.html").read_text())
    assert page.tables[0][1][:4] == ["w", "2", "0", "too few steps"] and page.pictures == []


def test_the_page_needs_nothing_else_and_has_all_of_it(learner, tmp_path):
    pytest.importorskip("matplotlib")
    learner.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.fetched == [] and "script" not in page.tags and "url(" not in text and "@import" not in text
    weights = page.tables[0]
    for line, row in zip(weights[1:], learner.report().rows, strict=True):
        found = dict(zip(weights[0], line, strict=True))
        assert found["weight"] == row.name and found["value"] == f"{row.value:.6g}" and found["verdict"] == row.verdict
        assert found["gradient"] == ("" if np.isnan(row.gradient) else f"{row.gradient:.3g}")
    assert [row[0] for row in page.tables[1][1:]] == ["unconverged", "shifted", "dominated"]
    assert ["data of the last step", "H (2, 2), C (3, 2)"] in page.tables[2] and ["steps", "30"] in page.tables[2]
    assert ["damping", "0.2"] in page.tables[3] and ["learning rate", "0.05"] in page.tables[3]
    assert [picture["alt"] for picture in page.pictures] == [
        f"{what} over the steps" for what in ("loss", "gradient norm", "share of the instances", "weight w")
    ]
    for picture in page.pictures:
        data = picture["src"].removeprefix("data:image/svg+xml;base64,")
        root = ElementTree.fromstring(base64.b64decode(data))
        assert root.tag.endswith("svg") and len(list(root.iter())) > 50
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_the_same_learner_gives_the_same_page(learner, tmp_path):
    for name in "ab":
        learner.report(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_cannot_break_the_page(tmp_path):
    t, evil = sp.Symbol("t", real=True), sp.Symbol("<script>alert(1)</script>&", real=True)
    kernel = wb.compile(wb.Energy((t - evil) ** 2, variables=[t], weights=[evil], name="</title>"), backend="reference")
    loss = wb.Loss(t**2, variables=[t])
    learner = wb.Learner(kernel, loss, weights={str(evil): 1.0})
    learner.fit(wb.Batch(start={"t": 0.0}))
    learner.report(tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "script" not in page.tags and page.tables[0][1][0] == str(evil)


def test_without_matplotlib_the_page_says_so(learner, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    learner.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "pip install &#x27;wiberg[figures]&#x27;" in text and Page(text).pictures == []


def test_a_page_that_cannot_be_written_leaves_what_was_there(learner, tmp_path):
    with pytest.raises(wb.CheckpointError, match="cannot write"):
        learner.report(tmp_path / "missing" / "report.html")
    old = tmp_path / "report.html"
    old.write_text("old")
    if os.geteuid() != 0:  # root may write everywhere
        tmp_path.chmod(0o500)
        with pytest.raises(wb.CheckpointError):
            learner.report(old)
        tmp_path.chmod(0o700)
        assert old.read_text() == "old"
    learner.report(old)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_loaded_learner_has_the_page_of_the_one_that_was_saved_but_for_its_last_batch(learner, tmp_path):
    learner.save(tmp_path / "run")
    loaded = wb.Learner.load(tmp_path / "run", learner.kernel, learner.loss)
    assert loaded.last_batch is None
    for one, name in ((learner, "a"), (loaded, "b")):
        one.report(tmp_path / name)
    one, other = (Page((tmp_path / name).read_text()) for name in "ab")
    assert one.tables[:2] + one.tables[3:] == other.tables[:2] + other.tables[3:] and one.pictures == other.pictures
    assert other.tables[2] == [["steps", "30"]]
