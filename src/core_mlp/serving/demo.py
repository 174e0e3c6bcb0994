"""A page to draw on: what the network sees, and its answers, while drawing."""

import os
from pathlib import Path

from PIL import Image

from core_mlp.pipeline.stage import InputError
from core_mlp.serving import predict

NUM_ANSWERS = 3
# Pixels.
CANVAS_SIDE = 320
BRUSH = 24
# Otherwise one would have to choose the brush before drawing.
CHOOSE_BRUSH = """() => {
  const timer = setInterval(() => {
    const brush = document.querySelector("button[title=Brush]");
    if (brush) { brush.click(); clearInterval(timer); }
  }, 100);
}"""


def build_page(model: predict.Model):
    """Builds the page, a `gradio.Blocks`, with the API endpoint `/predict`.

    Raises:
      InputError: If Gradio is not installed.
    """
    # It sends statistics, and asks for its latest version, unless this is set.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        raise InputError(
            "the demo needs Gradio: run `make setup` or `pip install gradio`"
        ) from error

    def answer(file: str | None) -> tuple[Image.Image | None, dict[str, float] | None]:
        """Answers about a picture: what the network saw, and its three best classes."""
        if file is None:
            return None, None
        try:
            prepared = predict.prepare(Path(file), model.network)
        except InputError as error:
            # Without Gradio's temporary folder.
            raise gr.Error(str(error).replace(f"{Path(file).parent}/", "")) from error
        (found,) = predict.classify(model, [prepared], NUM_ANSWERS)
        height, width, _ = found.image.shape
        scale = max(1, CANVAS_SIDE // max(height, width))
        image = Image.fromarray(found.image.squeeze())
        return image.resize((width * scale, height * scale), 0), found.classes

    def answer_drawing(drawing: dict) -> tuple:
        try:
            return answer(drawing["composite"])
        except gr.Error:  # The canvas is empty.
            return None, None

    with gr.Blocks(title="core_mlp", analytics_enabled=False) as page:
        with gr.Row():
            canvas = gr.Sketchpad(
                type="filepath",
                format="png",
                label="Draw",
                canvas_size=(CANVAS_SIDE, CANVAS_SIDE),
                brush=gr.Brush(default_size=BRUSH, colors=["#000000"]),
                layers=False,
                transforms=(),
            )
            with gr.Column():
                seen = gr.Image(label="What the network sees", format="png", buttons=[])
                classes = gr.Label(label="Answer", num_top_classes=NUM_ANSWERS)
        picture = gr.File(label="Or drop a picture", file_types=["image"], height=140)
        outputs = [seen, classes]
        canvas.change(
            answer_drawing,
            canvas,
            outputs,
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
        picture.upload(answer, picture, outputs, api_name="predict")
        page.load(js=CHOOSE_BRUSH)
    return page


def serve(model: predict.Model, host: str, port: int) -> None:
    """Serves the page until it is interrupted. It needs no network."""
    page = build_page(model)
    import gradio as gr

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    theme = gr.themes.Default(**fonts)  # Not from Google's servers.
    page.launch(server_name=host, server_port=port, theme=theme, ssr_mode=False)
