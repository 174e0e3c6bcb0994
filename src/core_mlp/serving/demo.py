"""A page to draw on: what the network sees, and its best answers."""

import os
from argparse import Namespace
from pathlib import Path

import numpy as np

from core_mlp.pipeline.stage import InputError
from core_mlp.serving import predict

SIDE = 320  # Pixels of the canvas.
# One would have to choose the brush before drawing.
CHOOSE_BRUSH = """function choose() { const b = document.querySelector(
  "button[title=Brush]"); if (b) b.click(); else setTimeout(choose, 100); }"""


def serve(model: predict.Model, options: Namespace) -> None:
    """Serves the page and the API `/predict`; raises InputError without Gradio."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        message = "the demo needs Gradio: run `make setup` or `pip install gradio`"
        raise InputError(message) from error

    def answer(picture: str | dict) -> tuple[np.ndarray | None, dict | None]:
        """Returns what the network saw, enlarged, and the likeliest classes."""
        is_drawing = isinstance(picture, dict)
        file = Path(picture["composite"] if is_drawing else picture)
        try:
            image, _ = predict.prepare(file, model[1], "auto")
        except InputError as error:
            if is_drawing:  # The canvas is empty.
                return None, None
            message = str(error).replace(f"{file.parent}/", "")
            raise gr.Error(message, print_exception=False) from error
        scale = max(1, SIDE // max(image.shape))
        seen = image.repeat(scale, axis=0).repeat(scale, axis=1).squeeze()
        return seen, predict.classify(model, image[np.newaxis], top=3)[0]

    with gr.Blocks(title="core_mlp") as page:
        names = ", ".join(model[1].class_names[:20])
        gr.Markdown(f"## Which class is it?\nDraw, or drop a picture. Classes: {names}")
        with gr.Row():
            look = {"canvas_size": (SIDE, SIDE), "layers": False, "transforms": ()}
            look["brush"] = gr.Brush(default_size=24, colors=["#000000"])
            canvas = gr.Sketchpad(type="filepath", format="png", label="Draw", **look)
            with gr.Column():
                seen = gr.Image(label="What the network sees", format="png", buttons=[])
                classes = gr.Label(label="Answer")
        picture = gr.File(label="Or drop a picture", file_types=["image"], height=140)
        canvas.change(answer, canvas, [seen, classes], api_visibility="private")
        picture.upload(answer, picture, [seen, classes], api_name="predict")
        page.load(js=CHOOSE_BRUSH)
    theme = gr.themes.Default(font="sans-serif", font_mono="monospace")  # No downloads.
    address = {"server_name": options.host, "server_port": options.port}
    quietly = {"ssr_mode": False, "quiet": True, "prevent_thread_lock": True}
    try:
        _, url, _ = page.launch(theme=theme, **address, **quietly)
    except OSError as error:
        problem = f"--port {options.port}: in use, or not allowed"
        raise InputError(problem) from error
    print(f"Running on {url}; Ctrl-C ends it", flush=True)
    page.block_thread()
