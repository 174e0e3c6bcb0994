"""Serves a page to draw on, which shows what the network sees and answers."""

import errno
import html
import os
import socket
import tempfile
from pathlib import Path

import numpy as np

from core_mlp.pipeline.errors import InputError, first_line
from core_mlp.pipeline.text import visible
from core_mlp.serving import predict

SIDE = 320  # Pixels of the canvas.
# Selects the brush on load; otherwise users must click it first.
SELECT_BRUSH = """function select() { const b = document.querySelector(
  "button[title=Brush]"); if (b) b.click(); else setTimeout(select, 100); }"""


def serve(model: predict.Model, *, host: str, port: int) -> None:
    """Serves the page and the API `/predict`, until the process ends.

    Raises:
      InputError: If Gradio is not installed, or the address cannot be used.
    """
    check_address(host, port)
    with tempfile.TemporaryDirectory() as folder:
        set_environment(folder)
        _serve(model, host, port)


def check_address(host: str, port: int) -> None:
    """Raises InputError if the page cannot be served at an address."""
    if not 1 <= port <= 65_535:
        raise InputError(f"--port {port}: expected 1 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        problem = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"--host {host}: {problem}") from error
    family, _, _, _, address = found[0]
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            problem = f"--host {host}: not an address of this machine"
        else:
            problem = f"--port {port}: in use, or not allowed"
        raise InputError(problem) from error


def set_environment(folder: str) -> None:
    """Makes Gradio independent of this process's environment.

    Args:
      folder: For uploaded pictures; Gradio's own may belong to another user.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", folder)
    # Gradio checks that its own page can be reached, which would fail through a proxy.
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]


def _serve(model: predict.Model, host: str, port: int) -> None:
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        message = "the demo needs Gradio: run `make setup-dev` or `pip install gradio`"
        raise InputError(message) from error

    def answer(picture: str | dict) -> tuple[np.ndarray | None, dict | None]:
        """Returns what the network saw, enlarged, and the likeliest classes."""
        is_drawing = isinstance(picture, dict)
        file = Path(picture["composite"] if is_drawing else picture)
        try:
            image = predict.prepare(file, model.network).image
        except InputError as error:
            if is_drawing:  # The canvas is empty.
                return None, None
            message = visible(str(error).replace(f"{file.parent}/", ""))
            # Gradio shows it as HTML.
            message = html.escape(message, quote=False)
            raise gr.Error(message, print_exception=False) from error
        scale = max(1, SIDE // max(image.shape))
        seen = image.repeat(scale, axis=0).repeat(scale, axis=1)
        if seen.shape[2] == 1:  # Gradio wants gray without an axis of channels.
            seen = seen.squeeze(axis=2)
        return seen, predict.classify(model, image[np.newaxis], top=3)[0]

    with gr.Blocks(title="core_mlp") as page:
        names = html.escape(visible(", ".join(model.network.class_names[:20])))
        gr.HTML(
            "<h2>Which class is it?</h2>"
            f"<p>Draw, or drop a picture. Classes: {names}</p>"
        )
        with gr.Row():
            canvas = gr.Sketchpad(
                type="filepath",
                format="png",
                label="Draw",
                canvas_size=(SIDE, SIDE),
                layers=False,
                transforms=(),
                brush=gr.Brush(default_size=24, colors=["#000000"]),
            )
            with gr.Column():
                seen = gr.Image(label="What the network sees", format="png", buttons=[])
                classes = gr.Label(label="Answer")
        picture = gr.File(label="Or drop a picture", height=140)
        canvas.change(answer, canvas, [seen, classes], api_visibility="private")
        picture.upload(answer, picture, [seen, classes], api_name="predict")
        page.load(js=SELECT_BRUSH)
    try:
        _, url, _ = page.launch(
            # The default theme would download its fonts.
            theme=gr.themes.Default(font="sans-serif", font_mono="monospace"),
            # Gradio expects an IPv6 address in brackets.
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise InputError(f"--port {port}: in use, or not allowed") from error
    print(f"Running on {url}; Ctrl-C ends it", flush=True)
    page.block_thread()
