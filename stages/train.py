"""Train the MLP with Adam.

Reads data/tfrecords/train/, data/tfrecords/validation/ and the parameters seed,
hidden_sizes, batch_size, epochs, learning_rate, beta_1, beta_2, epsilon, precision,
memory_budget. Writes models/checkpoint/, metrics/train.json, plots/history.csv (after
each epoch) and plots/activations.csv.
"""

from pathlib import Path

from core_mlp.pipeline import params
from core_mlp.pipeline.files import write_csv, write_json
from core_mlp.pipeline.metadata import NetworkInfo, SplitInfo
from core_mlp.pipeline.stage import run_stage
from core_mlp.training import checkpoints, input_pipeline, loop, model, resume
from core_mlp.training.optimizers import Adam

TRAIN = Path("data/tfrecords/train")
VALIDATION = Path("data/tfrecords/validation")


def main() -> None:
    p = params.load_params(params.TrainParams)
    device = loop.set_up_device()
    info, validation_info = map(SplitInfo.read_split, (TRAIN, VALIDATION))
    network = NetworkInfo(
        image_shape=info.image_shape,
        hidden_sizes=p.hidden_sizes,
        class_names=info.class_names,
    )
    mlp = checkpoints.build_model(network, p.seed, p.precision)
    weights = mlp.trainable_variables
    optimizer = Adam(weights, p.learning_rate, p.beta_1, p.beta_2, p.epsilon)
    data = input_pipeline.epoch_data(TRAIN, info, p.seed, p.batch_size, p.memory_budget)
    validation = input_pipeline.read_examples(VALIDATION, validation_info)
    print(f"Training {mlp.num_parameters:,} parameters on {device}", flush=True)
    key = resume.run_hash(p, [info, validation_info], device, Path(__file__))
    with resume.exclusive_state(key) as state:
        history = resume.restore_state(state, mlp, optimizer)
        epochs = range(len(history) + 1, p.epochs + 1)
        training = loop.train(mlp, optimizer, data, validation, epochs, p.batch_size)
        for metrics in loop.show_progress(training, epochs):
            history.append(metrics)
            resume.save_state(state, mlp, optimizer, history)
            write_history(history)
        write_history(history)  # Even if no epoch was left to resume.
        checkpoints.write_checkpoint(Path("models/checkpoint"), mlp, network)
    curves = model.activation_curves()
    write_csv(Path("plots/activations.csv"), ["x", "relu", "softmax"], curves)


def write_history(history: list[loop.EpochMetrics]) -> None:
    rows = [metrics[:-1] for metrics in history]
    write_csv(Path("plots/history.csv"), loop.EpochMetrics._fields[:-1], rows)
    write_json(Path("metrics/train.json"), history[-1].summary())


if __name__ == "__main__":
    run_stage(main)
