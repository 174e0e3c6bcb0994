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
            raise gr.Error(str(error).replace(f"{file.parent}/", "")) from error
        scale = max(1, SIDE // max(image.shape))
        seen = image.repeat(scale, axis=0).repeat(scale, axis=1).squeeze()
        return seen, predict.classify(model, image[np.newaxis], top=3)[0]

    with gr.Blocks(title="core_mlp") as page:
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
    page.launch(theme=theme, ssr_mode=False, **address)
