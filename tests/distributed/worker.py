"""Runs the train stage, streaming if $STREAMED, and prints its weights' hash."""

import hashlib
import os

import stages  # noqa: F401  # isort: skip

from core_mlp.pipeline.errors import exit_on_input_error
from core_mlp.training import loop
from stages import train


def main():
    if os.environ.get("STREAMED"):
        epoch_data = train.input_pipeline.epoch_data
        train.input_pipeline.epoch_data = lambda folder, info, p: epoch_data(
            folder, info, p.model_copy(update={"memory_budget": 0})
        )
    built = []
    build = loop.Models.build
    loop.Models.build = lambda *args: built.append(build(*args)) or built[0]
    with exit_on_input_error():
        train.main()
    variables = [variable.numpy().tobytes() for variable in built[0].kept.variables]
    print("weights", hashlib.sha256(b"".join(variables)).hexdigest())


if __name__ == "__main__":
    main()
