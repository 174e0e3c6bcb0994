"""The command `core-mlp`: compares, checks, shares and uses the results."""

import argparse
import os
import sys
from pathlib import Path

from core_mlp import workers
from core_mlp.pipeline.environment import check_source
from core_mlp.pipeline.stage import InputError, exit_on_input_error
from core_mlp.pipeline.text import print_any_text


def main() -> None:
    parser = argparse.ArgumentParser(prog="core-mlp", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("report", "compare two runs: writes report.md and report.html"),
        ("gate", "compare two runs, check gate.yaml: exit code 1 fail, 3 investigate"),
        ("same", "run what is out of date; check that no output changed by a byte"),
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
        "name", nargs="?", default="", help="name of the recipe; without it, list all"
    )
    how = recipe.add_mutually_exclusive_group()
    how.add_argument("--queue", action="store_true", help="queue it, do not run it")
    how.add_argument("--seeds", type=int, metavar="N", help="run the seeds 1 to N")
    push = commands.add_parser("push", help="push results and DVC's whole run cache")
    push.add_argument("--remote", help="name of the DVC remote; default: DVC's own")
    ask = commands.add_parser("predict", help="classify pictures")
    ask.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    ask.add_argument("--top", type=int, default=3, help="classes per picture")
    ask.add_argument("--format", choices=("table", "json", "csv"), default="table")
    ask.add_argument(
        "--invert",
        choices=("auto", "yes", "no"),
        default="auto",
        help="swap light and dark; auto: if the border is unlike the training images'",
    )
    ask.add_argument("--show", type=Path, help="draw the network's inputs as this PNG")
    page = commands.add_parser("demo", help="serve a page to draw on")
    page.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    page.add_argument("--port", type=int, default=7860, help="default: 7860")
    for command in (ask, page):
        command.add_argument(
            "--model", type=Path, help="its folder; default: the project's own"
        )
    team = commands.add_parser("workers", help="train with N workers on this machine")
    team.add_argument("number", type=int, metavar="N", help="number of workers")
    about = "command of the first worker, after --; default: dvc repro"
    default = ["dvc", "repro"]
    team.add_argument("chief", nargs="*", default=default, metavar="CMD", help=about)
    args = parser.parse_args()
    # The commands that are run find the environment's programs.
    scripts = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    # A notebook's own, for example, which is not installed here.
    os.environ["MPLBACKEND"] = "agg"
    print_any_text()
    with exit_on_input_error():
        if args.command in ("predict", "demo"):
            run_model(args)
            return
        if args.command == "workers":
            workers.run_workers(args.number, args.chief)
            return
        # Paths in the project are relative to its folder.
        os.chdir(find_project())
        if args.command in ("same", "seeds", "recipe"):
            check_source()  # They run DVC, which would hang or fail without a word.
        run_report(args)


def find_project() -> Path:
    """Returns the folder of the project, which the current folder may be below.

    Raises:
      InputError: If neither the current folder nor one above has a dvc.yaml.
    """
    current = Path.cwd()
    for folder in (current, *current.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise InputError(f"no dvc.yaml in {current} or above: change to the project first")


def run_model(args: argparse.Namespace) -> None:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Imports less.
    # TensorFlow's C++ core prints while it loads, whatever its settings.
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        from core_mlp.serving import demo, predict

        folder = args.model or find_project() / "models/saved_model"
        model = predict.load_model(folder.expanduser())
    finally:
        os.dup2(stderr, 2)
    run = demo.serve if args.command == "demo" else predict.predict_files
    run(model, args)


def run_report(args: argparse.Namespace) -> None:
    from core_mlp.reporting import recipes, report, same, seeds, sharing, sweep

    match args.command:
        case "report" if args.experiments:
            sweep.write_sweep()
        case "report" | "gate":
            report.write_report(args.base, args.head, with_gate=args.command == "gate")
        case "same":
            same.compare_outputs(args.base)
        case "recipe":
            recipes.run_recipe(args.name, queue=args.queue, num_seeds=args.seeds)
        case "push":
            sharing.push_runs(args.remote)
        case "seeds":
            seeds.run_seeds(args.number, replace=args.replace)


if __name__ == "__main__":
    main()
