"""The command `core-mlp`."""

import argparse
import os
import sys
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
    recipe.add_argument(
        "name", nargs="?", default="", help="name of the recipe; without, lists all"
    )
    recipe.add_argument("--queue", action="store_true", help="queue it instead")
    recipe.add_argument("--seeds", type=int, metavar="N", help="run the seeds 1 to N")
    push = commands.add_parser("push", help="push results and DVC's whole run cache")
    push.add_argument("--remote", help="name of the DVC remote; default: its default")
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


if __name__ == "__main__":
    main()
