"""`core-mlp demo`: the page in a browser, and its API."""

import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, STROKES, start_preloaded, try_to_run

from core_mlp import cli

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
SEVEN = ROOT / "docs/images/seven.png"
TIMEOUT = 20_000  # Milliseconds; an answer takes a fraction of a second.


@pytest.fixture(scope="module")
def address(digit_model, tmp_path_factory):
    """Address of a running demo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    temporary = {"GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio"))}
    process = start_preloaded(
        *("core-mlp", "demo", "--port", port),
        cwd=ROOT,
        PYTHONUNBUFFERED="1",
        **temporary,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        lines = iter(process.stdout.readline, "")
        assert any(address in line for line in lines)
        yield address
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("needs Chromium or Chrome")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(address, browser):
    """The page, ready to draw on; `page.requested` lists every URL it requested."""
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(address)
    page.locator("canvas").first.wait_for()
    page.get_by_title("Brush size").or_(
        page.get_by_title("Size button")
    ).first.wait_for()
    yield page
    page.close()


def answer(page):
    label = page.get_by_test_id("label-output-value")
    label.wait_for()
    return label.inner_text().strip()


@pytest.mark.parametrize("digit", [0, 1, 7])
def test_a_drawn_digit_is_recognized_without_any_other_click(page, digit):
    box = page.locator("canvas").first.bounding_box()
    side = min(box["width"], box["height"])
    left = box["x"] + (box["width"] - 0.4 * side) / 2
    top = box["y"] + (box["height"] - 0.6 * side) / 2
    for number, pair in enumerate(STROKES[digit].split()):
        x, y = (int(part) / 100 * side for part in pair.split(","))
        page.mouse.move(left + 0.4 * x, top + 0.6 * y, steps=5)
        if number == 0:
            page.mouse.down()
    page.mouse.up()

    assert answer(page) == str(digit)
    assert (
        page.get_by_test_id("image").first.or_(page.locator("img")).first.is_visible()
    )


def test_a_dropped_picture_is_answered_and_nothing_comes_from_elsewhere(page, address):
    page.locator("input[type=file]").last.set_input_files(SEVEN)

    assert answer(page) == "7"
    outside = [
        u for u in page.requested if not u.startswith((address, "data:", "blob:"))
    ]
    assert outside == []


def test_a_broken_picture_gets_a_message(page, tmp_path):
    (tmp_path / "broken.png").write_bytes(SEVEN.read_bytes()[:50])

    page.locator("input[type=file]").last.set_input_files(tmp_path / "broken.png")

    toast = page.get_by_test_id("toast-body")
    toast.wait_for()
    assert "'broken.png': not a readable image: " in toast.inner_text()


def test_the_api_answers_as_predict_does(address, digit_model, tmp_path):
    gradio_client = pytest.importorskip("gradio_client")
    from core_mlp.serving import predict

    client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
    seen, answers = client.predict(
        gradio_client.handle_file(SEVEN), api_name="/predict"
    )

    image, _ = predict.prepare(SEVEN, digit_model.network)
    (expected,) = predict.classify(digit_model, image[np.newaxis], top=3)
    found = {row["label"]: row["confidence"] for row in answers["confidences"]}
    assert found == pytest.approx(expected)
    assert answers["label"] == "7"
    assert Path(seen).exists()


def test_a_port_in_use_is_one_line(address, digit_model):
    port = address.split(":")[-1]

    result = try_to_run("core-mlp", "demo", "--port", port, cwd=ROOT)

    assert result.returncode == 1
    assert result.stdout == f"error: --port {port}: in use, or not allowed\n"


def test_without_gradio_one_line_says_how_to_install_it(digit_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["core-mlp", "demo"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == (
        "error: the demo needs Gradio: run `make setup-dev` or `pip install gradio`"
    )
