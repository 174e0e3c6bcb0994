"""Times the ways to use the model: latency, throughput, size and memory.

Each way has its own process, since memory is measured per process. Needs the models of
`dvc repro`. Run it with `make bench`, or `bench.py --only serving`.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SAVED_MODEL, LITERT = Path("models/saved_model"), Path("models/litert")
TEST_IMAGES = Path("data/raw/test/images.npy")
ROUNDS = 5
NUM_SINGLE = 500


def measure() -> dict[str, dict[str, float]]:
    """Returns the measurements by way: ms, images/s, MB on disk and in memory."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        subprocess.run(
            [sys.executable, __file__, "float", scratch / "float"], check=True
        )
        pictures = scratch / "png"
        subprocess.run([sys.executable, __file__, "png", pictures], check=True)
        return {
            "SavedModel in Python": _in_process("saved_model", SAVED_MODEL),
            "LiteRT, quantized": _in_process("litert", LITERT),
            "LiteRT, float": _in_process("litert", scratch / "float"),
            "saved_model_cli run": _command(
                f"saved_model_cli run --dir {SAVED_MODEL} --tag_set serve "
                f"--signature_def serving_default --inputs images={pictures}/one.npy"
            ),
            "core-mlp predict": _predict(pictures, LITERT),
            f"core-mlp predict --model {SAVED_MODEL}": _predict(pictures, SAVED_MODEL),
            "core-mlp demo, over HTTP": _demo(pictures / "00000.png"),
        }


def _in_process(kind: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, kind, str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1]) | {"MB on disk": _megabytes(folder)}


def _command(command: str) -> dict[str, float]:
    """Times a command as a whole, from its start."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(command.split(), check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return {"first answer, s": round(statistics.median(seconds), 2)}


def _predict(pictures: Path, folder: Path) -> dict[str, float]:
    one = _command(f"core-mlp predict --model {folder} {pictures}/00000.png")
    rates = {}
    for kind in ("predict", "predict_large"):
        output = subprocess.run(
            [sys.executable, __file__, kind, pictures, folder],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        rates |= json.loads(output.splitlines()[-1])
    return one | rates


def _demo(picture: Path) -> dict[str, float]:
    from gradio_client import Client, handle_file

    command = ["core-mlp", "demo", "--port", "7899"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        next(line for line in process.stdout if "http://" in line)
        client = Client("http://127.0.0.1:7899", verbose=False)
        file = handle_file(picture)
        ms = _median_ms(lambda: client.predict(file, api_name="/predict"), 20)
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        return {"one image, ms": ms, "MB of memory": round(peak)}
    finally:
        process.terminate()
        process.communicate()


def _time_model(kind: str, folder: Path) -> dict[str, float]:
    import numpy as np

    images = np.load(TEST_IMAGES)
    if kind == "litert":
        from ai_edge_litert.interpreter import Interpreter

        path = str(folder / "model.tflite")
        runner = Interpreter(path, num_threads=2).get_signature_runner()
    else:
        import tensorflow as tf

        signature = tf.saved_model.load(str(folder)).signatures["serving_default"]

        def runner(images):
            return signature(images=tf.constant(images))["classes"].numpy()

    ms = _median_ms(lambda: runner(images=images[:1]), NUM_SINGLE)
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for index in range(0, len(images), 1000):
            runner(images=images[index : index + 1000])
        rates.append(len(images) / (time.perf_counter() - start))
    return {
        "one image, ms": ms,
        "images/s": round(statistics.median(rates)),
        "MB of memory": _peak(),
    }


def _time_predict(kind: str, pictures: Path, model_folder: Path) -> dict[str, float]:
    """Times 10,000 images of the network's size, or 1,000 of 224 by 224 pixels."""
    import contextlib
    import io

    from core_mlp.serving import predict

    model = predict.load_model(model_folder)
    rates = []
    folder = pictures / ("large" if kind == "predict_large" else "small")
    number = len(list(folder.iterdir()))
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            predict.predict_files(model, [folder], output_format="csv")
        rates.append(number / (time.perf_counter() - start))
    rate = round(statistics.median(rates))
    if kind == "predict_large":
        return {"images/s, 224 x 224": rate}
    return {"images/s": rate, "MB of memory": _peak()}


def _write_pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    images = np.load(TEST_IMAGES)
    for name in ("small", "large"):
        (folder / name).mkdir(parents=True)
    for index, image in enumerate(images):
        picture = Image.fromarray(image.squeeze())
        picture.save(folder / f"small/{index:05d}.png")
        if index < 1000:
            picture.resize((224, 224)).save(folder / f"large/{index:05d}.png")
    picture = Image.fromarray(255 - images[0].squeeze())
    picture.resize((224, 224)).save(folder / "00000.png")
    np.save(folder / "one.npy", images[:1])


def _median_ms(call: Callable, number: int) -> float:
    call()
    seconds = []
    for _ in range(number):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return round(1000 * statistics.median(seconds), 3)


def _peak() -> int:
    """Returns the peak memory of this process, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _megabytes(folder: Path) -> float:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return round(size / 1e6, 2)


def _serve(kind: str, folder: Path, *others: Path) -> None:
    if kind == "png":
        _write_pictures(folder)
    elif kind == "float":
        from core_mlp.serving import litert

        litert.convert(SAVED_MODEL, folder, quantize=False)
    elif kind.startswith("predict"):
        print(json.dumps(_time_predict(kind, folder, *others)))
    else:
        print(json.dumps(_time_model(kind, folder)))


if __name__ == "__main__":
    _serve(sys.argv[1], *map(Path, sys.argv[2:]))
