"""Searches hyperparameters on the validation split; never reads the test split.

    python recipes/search.py NAME KEY=VALUE ...

Trains with params.yaml and the given changes, and appends a row to recipes/search.csv.
"""

import json
import sys
import time
from pathlib import Path

import stages.train as stage
from core_mlp.pipeline.metadata import NetworkInfo, SplitInfo
from core_mlp.pipeline.params import TrainParams, load_params
from core_mlp.training import checkpoints, input_pipeline, loop
from core_mlp.training.optimizers import build_optimizer

RESULTS = Path(__file__).with_suffix(".csv")


def main() -> None:
    name, *settings = sys.argv[1:]
    values = load_params(TrainParams).model_dump()
    for setting in settings:
        key, value = setting.split("=")
        *group, key = key.split(".")
        target = values[group[0]] if group else values
        target[key] = value if isinstance(target[key], str) else json.loads(value)
    p = TrainParams(**values)
    loop.set_up_device()
    info, validation_info = map(SplitInfo.read_split, (stage.TRAIN, stage.VALIDATION))
    network = NetworkInfo.of(info, p.hidden_sizes)
    model, average = (
        checkpoints.build_model(network, p.seed, p.precision) for _ in range(2)
    )
    evaluated = average if p.ema_decay else model
    optimizer = build_optimizer(model, evaluated, p, info.num_examples)
    data = input_pipeline.epoch_data(
        stage.TRAIN, info, p.seed, p.batch_size, p.memory_budget
    )
    validation = input_pipeline.read_examples(stage.VALIDATION, validation_info)
    models = loop.Models(model, evaluated, evaluated)
    start = time.monotonic()
    history = []
    for metrics in loop.train(models, optimizer, data, validation, history, p):
        print(f"{name}: epoch {metrics.epoch}: {metrics}", flush=True)
    seconds = time.monotonic() - start
    last = history[-1]
    row = f"{last.validation_accuracy:.4f},{last.validation_loss:.4f},{seconds:.0f}"
    if not RESULTS.exists():
        RESULTS.write_text(
            "name,validation_accuracy,validation_loss,seconds,settings\n"
        )
    with RESULTS.open("a") as file:
        file.write(f"{name},{row},{' '.join(settings)}\n")


if __name__ == "__main__":
    main()
