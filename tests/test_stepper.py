"""The page on which one steps through a graph: its numbers, its limits, and how it behaves."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium

import pyframe as pf
from pyframe.errors import ArgumentError, GraphError

pytestmark = pytest.mark.once  # it says nothing of a kernel

RNG = np.random.default_rng(0)
FEED = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 1))


def network(**options: Any) -> tuple[pf.Plan, dict[Any, Any]]:
    """A network of the lesson's kind and what to feed it."""
    x, y = pf.Placeholder("x", shape=(None, 3)), pf.Placeholder("y", shape=(None, 1))
    w = pf.Parameter(np.linspace(-1, 1, 12).reshape(3, 4), name="w")
    b = pf.Parameter(np.linspace(0, 1, 4), name="b")
    v = pf.Parameter(np.ones((4, 1)), name="v")
    cost = pf.L2Loss(y, pf.MatMul(pf.Sigmoid(pf.Linear(x, w, b)), v))
    options = {"optimizer": pf.optimizers.SGD(0.1), "inspect": True, **options}
    return pf.compile(cost, **options), {x: FEED[0], y: FEED[1]}


def lenet(**options: Any) -> tuple[pf.Plan, dict[Any, Any]]:
    """A convolutional network as LeCun et al. had it, on eight images."""
    cnn = pytest.importorskip("pyframe_cnn", reason="its plugin draws the pages of convolutions")
    dense = pf.layers.Dense
    model = pf.Sequential(
        [
            cnn.Conv2D(6, 5, padding="same", activation="relu"), cnn.AvgPool2D(2),
            cnn.Conv2D(16, 5, activation="relu"), cnn.AvgPool2D(2), pf.layers.Flatten(),
            dense(120, "relu"), dense(84, "relu"), dense(10),
        ]
    )  # fmt: skip
    return classes(model, RNG.normal(size=(8, 28, 28, 1)), **options)


def lstm(**options: Any) -> tuple[pf.Plan, dict[Any, Any]]:
    """An LSTM over ten steps."""
    seq = pytest.importorskip("pyframe_seq", reason="its plugin draws the pages of sequences")
    model = pf.Sequential([seq.LSTM(16), pf.layers.Dense(10)])
    return classes(model, RNG.normal(size=(8, 10, 4)), **options)


def classes(model: Any, rows: Any, **options: Any) -> tuple[pf.Plan, dict[Any, Any]]:
    x = pf.Placeholder("x", shape=(None, *rows.shape[1:]))
    y = pf.Placeholder("y", shape=(None,), dtype="int64")
    options = {"optimizer": pf.optimizers.SGD(0.1), "inspect": True, **options}
    return pf.compile(pf.CrossEntropy(y, model(x)), **options), {x: rows, y: np.arange(len(rows))}


NETWORKS = pytest.mark.parametrize("made", [network, lenet, lstm])


def data_of(page: pf.plotting.Page) -> dict[str, Any]:
    (text,) = re.findall(r'id="data">(.*?)</script>', page.text, flags=re.DOTALL)
    return json.loads(text)


def shown(array: Any) -> Any:
    """An array's numbers as the page has them, in rows of its last axis."""
    array = np.asarray(array, np.float64)
    rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    return [[float(f"{x:.5g}") for x in row] for row in rows]


@NETWORKS
def test_its_numbers_are_those_of_the_plan(made: Any) -> None:
    plan, feed = made()
    data = data_of(pf.plotting.stepper(plan, feed, steps=3))
    assert len(data["frames"]) == 4
    for step, frame in enumerate(data["frames"]):
        if step:
            plan.step(feed)
        loss, _ = plan.loss_and_gradients(feed)
        assert frame["loss"] == float(f"{loss:.5g}")
        nodes = [node for node in plan.graph.order if not isinstance(node, pf.Constant)]
        assert [node["name"] for node in data["nodes"]] == [plan.graph.names[n] for n in nodes]
        for node, value, gradient in zip(nodes, frame["values"], frame["gradients"], strict=True):
            expected = feed[node] if isinstance(node, pf.Placeholder) else plan.value(node)
            if isinstance(node, pf.Placeholder):
                expected = np.asarray(expected, node.dtype)
            check_picture(value, expected)
            if gradient is None:  # of labels, and of what leads to no loss
                with pytest.raises(GraphError):
                    plan.gradient(node)
            else:
                check_picture(gradient, plan.gradient(node))


def check_picture(picture: Any, array: Any) -> None:
    """Check that a page has the first numbers of an array, and shape, extremes and mean of all."""
    shape, rows, *sums = picture
    assert shape == list(np.shape(array))
    expected = shown(array)[: len(rows)]
    assert rows == [row[: len(rows[0])] for row in expected] and rows
    array = np.asarray(array, np.float64)
    assert sums == [float(f"{x:.5g}") for x in (array.min(), array.max(), array.mean())]
    if array.size <= 32:  # as many as there are in a row
        assert rows == shown(array)


@NETWORKS
def test_pages_are_small(made: Any) -> None:
    plan, feed = made()
    for steps in (0, 50):
        page = pf.plotting.stepper(plan, feed, steps=steps)
        assert len(page.text.encode()) < 1_500_000


def test_the_plan_is_as_it_was() -> None:
    plan, feed = network(optimizer=pf.optimizers.Adam(0.1))
    plan.step(feed)
    before = [np.array(p.value) for p in plan.parameters]
    pf.plotting.stepper(plan, feed, steps=5)
    assert plan.step_count == 1
    for parameter, value in zip(plan.parameters, before, strict=True):
        np.testing.assert_array_equal(parameter.value, value)


def test_what_a_node_reads_and_says_of_itself() -> None:
    plan, feed = network()
    nodes = data_of(pf.plotting.stepper(plan, feed))["nodes"]
    linear = next(node for node in nodes if node["op"] == "Linear")
    assert sorted(nodes[i]["name"] for i in linear["inputs"]) == ["b", "w", "x"]
    assert linear["formula"].startswith("y = x @ weight + bias")
    assert {node["kind"] for node in nodes} == {"input", "parameter", "computed"}


@NETWORKS
def test_boxes_and_notes_do_not_overlap(made: Any) -> None:
    plan, feed = made()
    boxes = [
        (*node["at"], node["width"]) for node in data_of(pf.plotting.stepper(plan, feed))["nodes"]
    ]
    for i, (x0, y0, w0) in enumerate(boxes):
        for x1, y1, w1 in boxes[:i]:
            assert abs(x0 - x1) >= max((w0 + w1) / 2, 110) or abs(y0 - y1) >= 26 + 28


def test_it_needs_nothing_besides_itself() -> None:
    plan, feed = network()
    text = pf.plotting.stepper(plan, feed).text.replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"https?://|src=|@import|url\(", text)


def test_names_and_titles_are_text_and_no_markup() -> None:
    bad = '</script><img src=x onerror="alert(1)">'
    x = pf.Placeholder("x", shape=(2,))
    k = pf.Parameter(np.array(1.0), name=bad.replace("/", "|"))
    page = pf.plotting.stepper(pf.compile(pf.Sum(k * x), inspect=True), {x: [1.0, 2.0]}, title=bad)
    assert "<img" not in page.text
    assert page.text.count("</script>") == 2
    assert data_of(page)["title"] == bad
    assert f"<title>{html.escape(bad)}</title>" in page.text


def test_numbers_that_json_does_not_know() -> None:
    x = pf.Placeholder("x", shape=(3,))
    k = pf.Parameter(np.array(1.0), name="k")
    page = pf.plotting.stepper(pf.compile(pf.Sum(k * x), inspect=True), {x: [np.nan, np.inf, 1.0]})
    data = data_of(page)
    (i,) = [i for i, node in enumerate(data["nodes"]) if node["name"] == "x"]
    assert data["frames"][0]["values"][i][1] == [["nan", "inf", 1.0]]
    assert data["frames"][0]["loss"] == "nan"


def test_an_empty_batch() -> None:
    plan, feed = network()
    page = pf.plotting.stepper(plan, {p: array[:0] for p, array in feed.items()})
    values = data_of(page)["frames"][0]["values"]
    assert [[0, 3], [], 0.0, 0.0, 0.0] in values


@pytest.mark.parametrize("steps", [0, 100])
def test_large_networks_stay_small_pages(steps: int) -> None:
    model = pf.Sequential([pf.layers.Dense(256, activation="relu") for _ in range(12)])
    x, y = pf.Placeholder("x", shape=(None, 64)), pf.Placeholder("y", shape=(None, 256))
    plan = pf.compile(pf.L2Loss(y, model(x)), optimizer=pf.optimizers.SGD(1e-4), inspect=True)
    page = pf.plotting.stepper(plan, {x: np.ones((128, 64)), y: np.ones((128, 256))}, steps=steps)
    assert len(page.text.encode()) < 1_500_000


def test_what_is_refused() -> None:
    plan, feed = network()
    with pytest.raises(ArgumentError, match="steps"):
        pf.plotting.stepper(plan, feed, steps=-1)
    blind, feed = network(inspect=False)
    with pytest.raises(GraphError, match="inspect=True"):
        pf.plotting.stepper(blind, feed)
    x = pf.Placeholder("x", shape=(2,))
    long: Any = x
    for _ in range(301):
        long = pf.Sigmoid(long)
    with pytest.raises(ArgumentError, match="at most 300"):
        pf.plotting.stepper(pf.compile(pf.Sum(long), inspect=True), {x: [0.0, 1.0]})


def test_it_is_saved_and_shown_in_notebooks(tmp_path: Path) -> None:
    plan, feed = network()
    page = pf.plotting.stepper(plan, feed)
    assert page.save(tmp_path / "page.html").read_text("utf-8") == page.text
    frame = page._repr_html_()
    assert html.unescape(frame.split('srcdoc="')[1].split('"')[0]) == page.text


# ---- in a browser ----


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "chrome", "window-size=1100,700") as made:
        yield made


def test_in_a_browser(browser: Any, tmp_path: Path) -> None:
    plan, feed = network()
    page = pf.plotting.stepper(plan, feed, steps=4, title="A title")
    data, count = data_of(page), len(plan.graph.order)
    browser.get(page.save(tmp_path / "page.html").as_uri())

    def text(name: str) -> str:
        return str(browser.find_element("id", name).text)

    def click(name: str) -> None:
        browser.find_element("id", name).click()

    def press(key: str) -> None:
        browser.find_element("tag name", "body").send_keys(key)

    right, left, home, end, up, down = "\ue014\ue012\ue011\ue010\ue013\ue015"
    assert text("title") == "A title"
    assert text("where") == "nothing computed yet"
    for step in range(1, 2 * count + 1):
        click("forward")
        i = step - 1 if step <= count else 2 * count - step
        assert text("where").endswith(f": {data['nodes'][i]['name']}")
        assert "latest" in browser.find_element("id", f"node-{i}").get_attribute("class")
    assert not browser.find_element("id", "forward").is_enabled()
    assert text("loss") == f"{data['frames'][0]['loss']:.5g}"
    assert "Gradient" in text("detail")
    for frame in range(1, 5):
        press(up)
        assert text("training-now") == str(frame)
        assert text("loss") == f"{data['frames'][frame]['loss']:.5g}"
    press(down)
    assert text("training-now") == "3"
    browser.find_element("id", "training").send_keys(right)  # the slider's own key
    assert text("training-now") == "4"
    browser.find_element("id", "title").click()
    press(home)
    assert text("where") == "nothing computed yet"
    press(right)
    press(right)
    press(left)
    assert text("where").startswith(f"forward 1 of {count}")
    press(end)
    assert text("where").startswith(f"backward {count} of {count}")
    click("back")
    click("first")
    assert browser.current_url.endswith("#step=0&training=4")
    node = browser.find_element("id", "node-2")  # every node is reached by Tab, and Enter opens it
    assert node.get_attribute("tabindex") == "0"
    browser.execute_script("arguments[0].focus()", node)
    browser.switch_to.active_element.send_keys("\ue007")
    assert text("detail").startswith(data["nodes"][2]["name"])
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


@NETWORKS
def test_every_node_is_reached_by_keys_and_shows_its_numbers(
    made: Any, browser: Any, tmp_path: Path
) -> None:
    plan, feed = made()
    page = pf.plotting.stepper(plan, feed, steps=2)
    data = data_of(page)
    browser.get(page.save(tmp_path / "page.html").as_uri())
    body = browser.find_element("tag name", "body")
    body.send_keys("\ue013", "\ue010")  # up, and the end
    browser.execute_script("document.getElementById('first').focus()")
    frame, reached = data["frames"][1], []
    for _ in range(len(data["nodes"]) + 20):
        browser.switch_to.active_element.send_keys("\ue004")  # Tab
        active = browser.switch_to.active_element
        name = active.get_attribute("id") or ""
        if not name.startswith("node-") or name in reached:
            continue
        reached.append(name)
        active.send_keys("\ue007")  # Enter
        i = int(name.removeprefix("node-"))
        assert browser.find_element("css selector", "#detail h2").text == data["nodes"][i]["name"]
        numbers = browser.execute_script(
            "return [...document.querySelectorAll('#detail .number')].map(n => n.textContent)"
            ".concat([...document.querySelectorAll('#detail td')].map(n => n.title))"
        )
        pictures = [p for p in (frame["values"][i], frame["gradients"][i]) if p is not None]
        single = [p[1][0][0] for p in pictures if np.prod(p[0]) == 1]
        several = [x for p in pictures if np.prod(p[0]) != 1 for row in p[1] for x in row]
        assert list(map(float, numbers)) == [*single, *several]
        assert active.get_attribute("aria-label").startswith(data["nodes"][i]["name"])
    assert reached == [f"node-{i}" for i in range(len(data["nodes"]))]
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
