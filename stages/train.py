"""Train the MLP with Adam.

Reads data/tfrecords/train/, data/tfrecords/validation/ and the parameters seed,
hidden_sizes, batch_size, epochs, learning_rate, beta_1, beta_2, epsilon, precision,
memory_budget, schedule, ema_decay, patience, augmentation. Writes models/checkpoint/,
metrics/train.json, plots/history.csv (after each epoch) and plots/activations.csv.
"""

from functools import partial
from pathlib import Path

from core_mlp.pipeline import params
from core_mlp.pipeline.files import write_csv, write_json
from core_mlp.pipeline.metadata import NetworkInfo, SplitInfo
from core_mlp.pipeline.stage import run_stage
from core_mlp.training import checkpoints, input_pipeline, loop, model, resume
from core_mlp.training.optimizers import build_optimizer

TRAIN = Path("data/tfrecords/train")
VALIDATION = Path("data/tfrecords/validation")


def main() -> None:
    p = params.load_params(params.TrainParams)
    device = loop.set_up_device()
    info, validation_info = map(SplitInfo.read_split, (TRAIN, VALIDATION))
    border = input_pipeline.border_range(TRAIN, info)
    network = NetworkInfo.of(info, p.hidden_sizes, border)
    build_model = partial(checkpoints.build_model, network, p.seed, p.precision)
    mlp = build_model()
    evaluated = build_model() if p.ema_decay else mlp
    kept = build_model() if p.patience else evaluated
    optimizer = build_optimizer(mlp, evaluated, p, info.num_examples)
    data = input_pipeline.epoch_data(TRAIN, info, p.seed, p.batch_size, p.memory_budget)
    validation = input_pipeline.read_examples(VALIDATION, validation_info)
    models = loop.Models(mlp, evaluated, kept)
    print(f"Training {mlp.num_parameters:,} parameters on {device}", flush=True)
    key = resume.run_hash(p, [info, validation_info], device, Path(__file__))
    with resume.exclusive_state(key) as state:
        modules = [mlp, optimizer, kept] if p.patience else [mlp, optimizer]
        history = resume.restore_state(state, modules)
        training = loop.train(models, optimizer, data, validation, history, p)
        for _ in loop.show_progress(training, len(history), p.epochs):
            resume.save_state(state, modules, history)
            write_history(history, p.patience)
        write_history(history, p.patience)  # Even if no epoch was left to resume.
        checkpoints.write_checkpoint(Path("models/checkpoint"), kept, network)
    curves = model.activation_curves()
    write_csv(Path("plots/activations.csv"), ["x", "relu", "softmax"], curves)


def write_history(history: list[loop.EpochMetrics], patience: int) -> None:
    rows = [metrics[:-1] for metrics in history]
    write_csv(Path("plots/history.csv"), loop.EpochMetrics._fields[:-1], rows)
    kept = loop.kept_epoch(history, patience)
    write_json(Path("metrics/train.json"), kept.summary())


if __name__ == "__main__":
    run_stage(main)
