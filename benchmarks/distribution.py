"""Times one and two workers with one core each, and the all-reduce alone.

Writes results/DATE-distribution.json: images/s of each epoch after the first, and
milliseconds of an all-reduce of all gradients. `--model` prints, from the medians of
such a file, how the time of a step falls with the number of workers.

    time of a step = compute / N + update + 2 * (N - 1) / N * bytes / bandwidth
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import describe_machine

# Images and epochs of each network and batch size.
CASES = {
    "784-700-500-10, 128": (12_800, 5),
    "784-2500-2000-1500-1000-500-10, 128": (1_280, 4),
    "784-2500-2000-1500-1000-500-10, 4096": (12_288, 4),
}
RESULTS = Path(__file__).parent / "results"
# The cores of each process.
SETTINGS = {
    "1 process, 1 core": ["0"],
    "1 process, 2 cores": ["0,1"],
    "2 processes, 1 core each": ["0", "1"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.worker)))
    elif arguments.model:
        print_model(json.loads(arguments.model.read_text(encoding="utf-8")))
    else:
        results = {name: {setting: [] for setting in SETTINGS} for name in CASES}
        for number in range(arguments.rounds):
            for name in CASES:
                for setting, cores in SETTINGS.items():
                    results[name][setting].append(run_workers(name, cores))
                    print(number, name, setting, results[name][setting][-1], flush=True)
        path = RESULTS / time.strftime("%Y-%m-%d-distribution.json")
        results = {"machine": describe_machine(), "workers": results}
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def run_workers(case: str, cores: list[str]) -> dict:
    """Returns what the chief measures."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in cores]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    processes = []
    for index, core in enumerate(cores):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        command = ["taskset", "--cpu-list", core, sys.executable, __file__]
        environment = {"TF_CONFIG": json.dumps(config), "TF_CPP_MIN_LOG_LEVEL": "3"}
        processes.append(
            subprocess.Popen(
                [*command, "--worker", case],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    return json.loads(outputs[0].splitlines()[-1])


def measure(case: str) -> dict:
    """Trains as the train stage does, on random images."""
    import numpy as np
    import tensorflow as tf

    from core_mlp.distributed import connection, replicas
    from core_mlp.training.device import set_up_device
    from core_mlp.training.input_pipeline import Chunk, Examples, epoch_permutation
    from core_mlp.training.model import MLP
    from core_mlp.training.optimizers import Adam
    from core_mlp.training.step import Objective

    set_up_device()
    num_images, num_epochs = CASES[case]
    network, batch_size = case.split(", ")
    sizes = [*map(int, network.split("-"))]
    with connection.connect({"benchmark": "0" * 15}) as workers:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, [num_images, 28, 28, 1], np.uint8)
        examples = Examples(
            *map(tf.constant, (images, rng.integers(0, 10, num_images)))
        )
        model = MLP([28, 28, 1], sizes[1:], seed=1)
        adam = Adam(model.trainable_variables)
        compiled = replicas.compile_functions(workers.strategy)
        rates, milliseconds = [], []
        for epoch in range(num_epochs):
            start = time.perf_counter()
            order = epoch_permutation(num_images, [0, epoch])
            chunk = Chunk(examples, order, tf.constant([0, epoch]))
            sums = compiled.train_epoch(
                model, adam, Objective(), chunk, batch_size=int(batch_size)
            )
            float(sums.loss)
            rates.append(round(num_images / (time.perf_counter() - start)))
        strategy = workers.strategy
        if strategy:

            @tf.function
            def all_reduce():
                def step():
                    context = tf.distribute.get_replica_context()
                    gradients = [tf.zeros_like(v) for v in model.trainable_variables]
                    return tf.reduce_sum(
                        context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)[0]
                    )

                total = tf.zeros([])
                for _ in tf.range(10):
                    total += strategy.run(step)
                return total

            for _ in range(4):
                start = time.perf_counter()
                all_reduce().numpy()
                milliseconds.append(round(100 * (time.perf_counter() - start), 2))
        else:

            @tf.function(jit_compile=True)
            def update():
                gradients = [tf.ones_like(v) for v in model.trainable_variables]
                adam.apply_gradients(gradients, model.trainable_variables)
                return adam.t.read_value()

            for _ in range(6):
                start = time.perf_counter()
                update().numpy()
                milliseconds.append(round(1000 * (time.perf_counter() - start), 2))
        parameters = model.num_parameters
    return {
        "parameters": parameters,
        "images_per_second": rates[1:],
        ("all_reduce" if strategy else "update") + "_milliseconds": milliseconds[1:],
    }


def print_model(results: dict) -> None:
    """Prints times of a step, in milliseconds, for numbers of workers up to 1,000."""
    for case, settings in results["workers"].items():
        rates = {
            setting: statistics.median(
                rate for turn in turns for rate in turn["images_per_second"]
            )
            for setting, turns in settings.items()
        }
        turns = settings["2 processes, 1 core each"]
        reduce = statistics.median(
            m for t in turns for m in t["all_reduce_milliseconds"]
        )
        num_bytes = 4 * turns[0]["parameters"]
        print(
            f"\n{case}: images/s: {rates}; all-reduce of {num_bytes:,} bytes: "
            f"{reduce} ms"
        )
        turns = settings["1 process, 1 core"]
        update = statistics.median(m for t in turns for m in t["update_milliseconds"])
        batch_size = int(case.split(", ")[1])
        compute = 1000 * batch_size / rates["1 process, 1 core"] - update
        print(f"On one core, compute {compute:.1f} ms, update {update:.1f} ms")
        # One all-reduce of two workers sends each worker's bytes once.
        for link, per_byte in {
            "measured": reduce / num_bytes,
            "10 Gbit/s": 8e3 / 10e9,
            "100 Gbit/s": 8e3 / 100e9,
        }.items():
            steps = [
                compute / n + update + 2 * (n - 1) / n * num_bytes * per_byte
                for n in range(1, 1001)
            ]
            chosen = (1, 2, 4, 8, 16, 32, 64, 100, 1000)
            row = ", ".join(f"{n}: {steps[n - 1]:.1f}" for n in chosen)
            enough = next(n for n in range(1, 1001) if steps[n - 1] < 1.1 * min(steps))
            print(f"{link}: {row}; within 10 % of the fastest from N = {enough}")


if __name__ == "__main__":
    main()
