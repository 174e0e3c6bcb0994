"""Train the MLP with Adam.

Reads data/tfrecords/train/, data/tfrecords/validation/ and its parameters. Writes
plots/distortions.png (before the first epoch), plots/history.csv (after each epoch),
metrics/train.json, models/checkpoint/, plots/activations.csv and
data/provenance/train.json.
"""

from functools import partial
from pathlib import Path

from core_mlp.data import sprites, tfrecords
from core_mlp.distributed import connection, replicas
from core_mlp.pipeline import params
from core_mlp.pipeline.files import write_csv, write_json
from core_mlp.pipeline.metadata import NetworkInfo, SplitInfo
from core_mlp.pipeline.stage import run_stage
from core_mlp.results.train import ActivationPoint, EpochResult
from core_mlp.training import checkpoints, input_pipeline, loop, resume
from core_mlp.training.activations import activation_curves
from core_mlp.training.augmentation import draw_rows
from core_mlp.training.device import set_up_device
from core_mlp.training.optimizers import build_optimizer
from core_mlp.training.step import Objective, balanced_weights

TRAIN = Path("data/tfrecords/train")
VALIDATION = Path("data/tfrecords/validation")
# The images in plots/distortions.png: how many, and how large they are at least.
NUM_SHOWN = 9
MIN_SIDE = 56


def main() -> None:
    p = params.load_params(params.TrainParams)
    device = set_up_device()
    info = SplitInfo.read_split(TRAIN)
    validation_info = SplitInfo.read_split(VALIDATION)
    run = resume.describe_run(p, [info, validation_info], device, Path(__file__))
    with connection.connect(run) as workers:
        network = NetworkInfo.of(info, p.model_dump())
        build_model = partial(checkpoints.build_model, network, p.seed, p.precision)
        models = loop.Models.build(build_model, p)
        optimizer = build_optimizer(
            models.trained, models.evaluated, p, info.num_examples
        )
        # What is saved; the averages of the weights are saved with the optimizer.
        modules = [models.trained, optimizer]
        if p.patience:
            modules.append(models.kept)
        class_weights = None
        if p.class_weights == "balanced":
            class_weights = balanced_weights(tfrecords.count_labels(TRAIN, info))
        epoch_data = input_pipeline.epoch_data(TRAIN, info, p)
        validation = input_pipeline.read_examples(VALIDATION, validation_info)
        num_parameters = models.trained.num_parameters
        print(f"Training {num_parameters:,} parameters on {device}", flush=True)
        if workers.is_chief:
            write_distortions(info, p.augmentation)
        with resume.exclusive_state(run, workers.key, p.epochs) as state:
            history = connection.restore_state(workers, state, modules, p.epochs)
            epochs = loop.train(
                models,
                optimizer,
                Objective.of(p, class_weights),
                epoch_data=epoch_data,
                validation=validation,
                history=history,
                p=p,
                compiled=replicas.compile_functions(workers.strategy),
            )
            for _ in loop.show_progress(
                epochs, num_trained=len(history), num_epochs=p.epochs
            ):
                if workers.is_chief:
                    resume.save_state(state, modules, history)
                    write_history(history, p.patience)
            if workers.is_chief:
                write_history(history, p.patience)  # Even if no epoch was left.
                checkpoints.write_checkpoint(
                    Path("models/checkpoint"), models.kept, network
                )
                write_csv(
                    Path("plots/activations.csv"), activation_curves(), ActivationPoint
                )
                # Otherwise, the learning rate depends on the number of epochs.
                if p.schedule == "constant":
                    resume.keep_state(state, modules, history)


def write_distortions(info: SplitInfo, augmentation: params.AugmentationParams) -> None:
    """Shows the first training images, each in a row with random distortions."""
    images, _ = tfrecords.read_split(TRAIN, info, count=NUM_SHOWN)
    rows = draw_rows(images, augmentation)
    sprites.write_sprite(
        Path("plots/distortions.png"),
        rows.reshape(-1, *info.image_shape),
        columns=rows.shape[1],
        min_side=MIN_SIDE,
    )


def write_history(history: list[EpochResult], patience: int) -> None:
    write_csv(Path("plots/history.csv"), history, EpochResult)
    kept = loop.kept_epoch(history, patience)
    write_json(Path("metrics/train.json"), kept.summary())


if __name__ == "__main__":
    run_stage(main)
