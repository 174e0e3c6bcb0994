"""`core-mlp demo` with hostile names, behind a proxy, at odd addresses."""

import os
import shutil
import socket

import numpy as np
import pytest
from helpers import ROOT, start_preloaded
from PIL import Image

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.serving import demo, saved_model
from core_mlp.training.model import MLP

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
IMAGE = "<img src=http://127.0.0.1:9/class.png>"
NAMES = (IMAGE, "<script>document.title = 'run'</script>", "![x](http://127.0.0.1:9/x)")
# Settings that users may have and that must not matter. Nothing listens on port 9.
ENVIRONMENT = {
    "http_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "GRADIO_SHARE": "True",
    "PYTHONUNBUFFERED": "1",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """IPv6 address of a running demo of a model with hostile class names."""
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    folder = tmp_path_factory.mktemp("model") / "saved_model"
    info = NetworkInfo(image_shape=(4, 3, 1), hidden_sizes=[], class_names=NAMES)
    classifier = saved_model.Classifier(
        MLP(info.image_shape, [3], seed=1), info.image_shape
    )
    saved_model.save_classifier(folder, classifier, info)
    with socket.socket(socket.AF_INET6) as free:
        free.bind(("::1", 0))
        port = str(free.getsockname()[1])
    command = ("core-mlp", "demo", "--host", "::1", "--port", port)
    process = start_preloaded(*command, "--model", str(folder), cwd=ROOT, **ENVIRONMENT)
    try:
        address = f"http://[::1]:{port}"
        lines = iter(process.stdout.readline, "")
        assert any(address in line for line in lines)
        yield address
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def page(address):
    if BROWSER is None:
        pytest.skip("needs Chromium or Chrome")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(address)
        page.locator("canvas").first.wait_for()
        yield page
        browser.close()


def outside(page, address):
    own = (address, "data:", "blob:")
    return [url for url in page.requested if not url.startswith(own)]


def test_names_of_classes_send_no_request_and_run_nothing(page, address, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, [4, 3], np.uint8)).save(tmp_path / "a.png")

    page.locator("input[type=file]").last.set_input_files(tmp_path / "a.png")

    label = page.get_by_test_id("label-output-value")
    label.wait_for()
    assert label.inner_text().strip() in NAMES
    assert IMAGE in page.locator("body").inner_text()
    assert outside(page, address) == []
    assert page.title() != "run"


def test_the_name_of_a_bad_picture_is_no_markup(page, address, tmp_path):
    bad = tmp_path / "<img src=x onerror=alert(1)>.png"
    bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")

    page.locator("input[type=file]").last.set_input_files(bad)

    toast = page.get_by_test_id("toast-body")
    toast.wait_for()
    assert "expected PNG, JPEG, GIF, BMP, WebP or TIFF" in toast.inner_text()
    assert toast.locator("img").count() == 0
    assert outside(page, address) == []


@pytest.mark.parametrize(
    ("host", "port", "problem"),
    [
        ("127.0.0.1", 0, "--port 0: expected 1 to 65535"),
        ("127.0.0.1", 70_000, "--port 70000: expected 1 to 65535"),
        ("no-such-host.invalid", 7860, "--host no-such-host.invalid: "),
        ("a b", 7860, "--host a b: "),
        ("192.0.2.1", 7860, "--host 192.0.2.1: not an address of this machine"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(host, port, problem):
    with pytest.raises(InputError) as error:
        demo.check_address(host, port)

    assert str(error.value).startswith(problem)
    assert "\n" not in str(error.value)
