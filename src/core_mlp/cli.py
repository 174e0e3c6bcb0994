"""The command `core-mlp`."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core_mlp.pipeline.stage import exit_on_input_error


def main() -> None:
    parser = argparse.ArgumentParser(prog="core-mlp", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("report", "compare two runs: writes report.md and report.html"),
        ("gate", "the same, and check gate.yaml: exit code 1 fail, 3 investigate"),
        ("same", "tell whether a change left every output's bytes alone"),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        if name == "report":
            command.add_argument(
                "--experiments",
                action="store_true",
                help="instead, rank the experiments on this commit by validation",
            )
        command.add_argument(
            "base",
            nargs="?",
            default="main",
            help="revision or experiment to compare with; default: main",
        )
        if name != "same":
            command.add_argument(
                "head", nargs="?", help="revision or experiment; default: workspace"
            )
    seeds = commands.add_parser("seeds", help="train with the seeds 1 to N")
    seeds.add_argument("number", type=int, metavar="N", help="number of seeds")
    seeds.add_argument(
        "--replace", action="store_true", help="replace even the results of more seeds"
    )
    recipe = commands.add_parser("recipe", help="run tested parameters from recipes/")
    recipe.add_argument("name", help="name of the recipe, such as mnist_fast")
    recipe.add_argument("--queue", action="store_true", help="queue it instead")
    recipe.add_argument("--seeds", type=int, metavar="N", help="run the seeds 1 to N")
    push = commands.add_parser("push", help="push results and DVC's whole run cache")
    push.add_argument("--remote", help="name of the DVC remote; default: its default")
    ask = commands.add_parser("predict", help="classify pictures")
    ask.add_argument("files", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    ask.add_argument("--top", type=int, default=3, metavar="N", help="classes each")
    ask.add_argument("--format", choices=("table", "json", "csv"), default="table")
    ask.add_argument(
        "--invert",
        choices=("auto", "yes", "no"),
        default="auto",
        help="auto: if its border is light and was dark in training, or vice versa",
    )
    ask.add_argument("--show", type=Path, metavar="PNG", help="draw what it saw")
    demo = commands.add_parser("demo", help="serve a page to draw on")
    demo.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    demo.add_argument("--port", type=int, default=7860)
    for command in (ask, demo):
        command.add_argument("--model", type=Path, default=Path("models/saved_model"))
    arguments = parser.parse_args()
    # The commands that are run find the environment's programs.
    scripts = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    with exit_on_input_error():
        match arguments.command:
            case "report" if arguments.experiments:
                from core_mlp.reporting.sweep import write_sweep

                write_sweep()
            case "report" | "gate":
                from core_mlp.reporting.report import write_report

                with_gate = arguments.command == "gate"
                write_report(arguments.base, arguments.head, with_gate=with_gate)
            case "same":
                from core_mlp.reporting.same import compare_outputs

                compare_outputs(arguments.base)
            case "recipe":
                from core_mlp.reporting.recipes import run_recipe

                run_recipe(
                    arguments.name, queue=arguments.queue, num_seeds=arguments.seeds
                )
            case "push":
                from core_mlp.reporting.sharing import push_runs

                push_runs(arguments.remote)
            case "seeds":
                from core_mlp.reporting.seeds import run_seeds

                run_seeds(arguments.number, replace=arguments.replace)
            case "predict":
                with _without_tensorflow_messages():
                    from core_mlp.serving import predict

                    model = predict.load_model(arguments.model)
                predict.predict_files(
                    model,
                    arguments.files,
                    invert=arguments.invert,
                    top=arguments.top,
                    output_format=arguments.format,
                    show=arguments.show,
                )
            case "demo":
                with _without_tensorflow_messages():
                    from core_mlp.serving.demo import serve
                    from core_mlp.serving.predict import load_model

                    model = load_model(arguments.model)
                serve(model, arguments.host, arguments.port)


@contextmanager
def _without_tensorflow_messages() -> Iterator[None]:
    """Discards what TensorFlow's C++ core prints on loading, whatever its settings."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # It takes a second to import.
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


if __name__ == "__main__":
    main()
