"""Train the MLP with Adam.

Reads data/tfrecords/train/, data/tfrecords/validation/ and the parameters seed,
hidden_sizes, batch_size, epochs, learning_rate, beta_1, beta_2, epsilon, precision,
memory_budget, schedule, weight_decay, ema_decay, patience, augmentation. Writes
models/checkpoint/, metrics/train.json, plots/history.csv (after each epoch),
plots/activations.csv and data/provenance/train.json.
"""

from functools import partial
from pathlib import Path

from core_mlp.pipeline import params
from core_mlp.pipeline.files import write_csv, write_json
from core_mlp.pipeline.metadata import NetworkInfo, SplitInfo
from core_mlp.pipeline.stage import run_stage
from core_mlp.training import checkpoints, distribution, input_pipeline, loop, resume
from core_mlp.training.model import activation_curves
from core_mlp.training.optimizers import build_optimizer

TRAIN, VALIDATION = Path("data/tfrecords/train"), Path("data/tfrecords/validation")


def main() -> None:
    p = params.load_params(params.TrainParams)
    device = loop.set_up_device()
    info, validation_info = map(SplitInfo.read_split, (TRAIN, VALIDATION))
    facts = resume.run_facts(p, [info, validation_info], device, Path(__file__))
    with distribution.connect(facts) as workers:
        border = input_pipeline.border_range(TRAIN, info)
        network = NetworkInfo.of(info, p.hidden_sizes, border)
        build = partial(checkpoints.build_model, network, p.seed, p.precision)
        mlp, evaluated, kept = models = loop.Models.build(build, p)
        optimizer = build_optimizer(mlp, evaluated, p, info.num_examples)
        data = input_pipeline.epoch_data(TRAIN, info, p)
        validation = input_pipeline.read_examples(VALIDATION, validation_info)
        print(f"Training {mlp.num_parameters:,} parameters on {device}", flush=True)
        modules = [mlp, optimizer, kept] if p.patience else [mlp, optimizer]
        with resume.exclusive_state([*facts.values(), *workers.key]) as state:
            history = distribution.restore_state(workers, state, modules, p.epochs)
            compiled = distribution.compile_functions(workers.strategy)
            task = models, optimizer, data, validation, history, p, compiled
            for _ in loop.show_progress(loop.train(*task), len(history), p.epochs):
                if workers.index == 0:
                    resume.save_state(state, modules, history)
                    write_history(history, p.patience)
            if workers.index == 0:
                write_history(history, p.patience)  # Even if no epoch was left.
                checkpoints.write_checkpoint(Path("models/checkpoint"), kept, network)
                curves = ["x", "relu", "softmax"], activation_curves()
                write_csv(Path("plots/activations.csv"), *curves)


def write_history(history: list[loop.EpochMetrics], patience: int) -> None:
    rows = [metrics[:-1] for metrics in history]
    write_csv(Path("plots/history.csv"), loop.EpochMetrics._fields[:-1], rows)
    write_json(Path("metrics/train.json"), loop.kept_epoch(history, patience).summary())


if __name__ == "__main__":
    run_stage(main)
