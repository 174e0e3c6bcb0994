"""The command `core-mlp`: compares, checks, shares and uses the results."""

import argparse
import os
import signal
import sys
from pathlib import Path

from core_mlp.distributed import local
from core_mlp.pipeline.environment import check_source
from core_mlp.pipeline.errors import InputError, exit_on_input_error
from core_mlp.pipeline.text import print_any_text

FAIL_EXIT_CODE = 1
INVESTIGATE_EXIT_CODE = 3
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM
# Exit codes of `core-mlp decide`, if not 0.
VERDICT_EXIT_CODES = {
    "worse": FAIL_EXIT_CODE,
    "cannot be compared": FAIL_EXIT_CODE,
    "not decided": INVESTIGATE_EXIT_CODE,
    "first impression": INVESTIGATE_EXIT_CODE,
}


def main() -> None:
    args = parse_arguments()
    # The commands run below must find the environment's programs.
    scripts = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    # A notebook's own backend, for example, is not installed here.
    os.environ["MPLBACKEND"] = "agg"
    print_any_text()
    with exit_on_input_error():
        match args.command:
            case "predict" | "demo":
                run_model(args)
            case "workers":
                local.run_workers(args.number, args.chief)
            case "report" | "gate":
                os.chdir(find_project())  # Paths in the project are relative to it.
                run_report(args)
            case _:
                os.chdir(find_project())
                # Like Ctrl-C, this also ends the experiments that run.
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED_EXIT_CODE))
                if args.command != "push":
                    check_source()  # Otherwise DVC hangs or fails silently.
                run_experiments(args)


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="core-mlp", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    base = argparse.ArgumentParser(add_help=False)
    base.add_argument(
        "base",
        nargs="?",
        default="main",
        help="revision or experiment to compare with; default: main",
    )
    head = argparse.ArgumentParser(add_help=False)
    head.add_argument(
        "head", nargs="?", help="revision or experiment; default: workspace"
    )
    jobs = argparse.ArgumentParser(add_help=False)
    jobs.add_argument(
        "--jobs",
        type=at_least_one,
        default=1,
        metavar="J",
        help="experiments at a time, each on its share of the cores; default: 1",
    )
    minutes = argparse.ArgumentParser(add_help=False)
    minutes.add_argument(
        "--minutes",
        type=more_than_zero,
        default=float("inf"),
        metavar="M",
        help="start no training after so many; default: no limit",
    )
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--model", type=Path, help="its folder; default: models/litert of the project"
    )

    about = "compare two runs: writes report.md and report.html"
    report = commands.add_parser(
        "report", help=about, description=about, parents=[base, head]
    )
    report.add_argument(
        "--experiments",
        action="store_true",
        help="instead, rank the experiments on this commit by validation",
    )
    about = "compare two runs, check gate.yaml: exit code 1 fail, 3 investigate"
    commands.add_parser("gate", help=about, description=about, parents=[base, head])
    about = (
        "train both with more seeds until one is better: exit code 1 worse, 3 not "
        "decided"
    )
    decide = commands.add_parser(
        "decide", help=about, description=about, parents=[base, head, jobs, minutes]
    )
    decide.add_argument(
        "--metric", default="test_accuracy", help="what decides; default: test_accuracy"
    )
    decide.add_argument(
        "--max-seeds", type=int, default=20, metavar="N", help="per side; default: 20"
    )
    about = "run what is out of date; check that no output changed by a byte"
    commands.add_parser("same", help=about, description=about, parents=[base])

    seeds = commands.add_parser(
        "seeds", help="train with the seeds 1 to N", parents=[jobs]
    )
    seeds.add_argument("number", type=int, metavar="N", help="number of seeds")
    seeds.add_argument(
        "--replace", action="store_true", help="replace even the results of more seeds"
    )

    sweep = commands.add_parser(
        "sweep", help="run each combination of parameters, rank them", parents=[jobs]
    )
    sweep.add_argument(
        "-S",
        "--set-param",
        action="append",
        required=True,
        dest="settings",
        metavar="KEY=VALUE,VALUE",
        help="as for `dvc exp run`; may be repeated",
    )

    search = commands.add_parser(
        "search",
        help="search for good parameters by validation",
        parents=[jobs, minutes],
    )
    search.add_argument(
        "space",
        type=absolute,
        metavar="SPACE.yaml",
        help="the values of each parameter",
    )
    search.add_argument(
        "--trials",
        type=at_least_one,
        required=True,
        metavar="N",
        help="how many there are in the end",
    )
    search.add_argument(
        "--apply", action="store_true", help="run the best setting as an experiment"
    )
    search.add_argument(
        "--save", metavar="NAME", default="", help="write it as recipes/NAME.yaml"
    )

    recipe = commands.add_parser(
        "recipe", help="run tested parameters from recipes/", parents=[jobs]
    )
    recipe.add_argument(
        "name", nargs="?", default="", help="name of the recipe; without it, list all"
    )
    how = recipe.add_mutually_exclusive_group()
    how.add_argument("--queue", action="store_true", help="queue it, do not run it")
    how.add_argument("--seeds", type=int, metavar="N", help="run the seeds 1 to N")

    suspects = commands.add_parser(
        "suspects",
        help="find labels that are probably wrong: writes suspects.html",
        parents=[jobs],
    )
    suspects.add_argument(
        "--folds",
        type=at_least_one,
        default=5,
        metavar="K",
        help="how many models to train, each without one fold; default: 5",
    )

    push = commands.add_parser("push", help="push results and DVC's whole run cache")
    push.add_argument("--remote", help="name of the DVC remote; default: DVC's own")

    predict = commands.add_parser("predict", help="classify pictures", parents=[model])
    predict.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    predict.add_argument("--top", type=int, default=3, help="classes per picture")
    predict.add_argument("--format", choices=("table", "json", "csv"), default="table")
    predict.add_argument(
        "--invert",
        choices=("auto", "yes", "no"),
        default="auto",
        help="swap light and dark; auto: if the border is unlike the training images'",
    )
    predict.add_argument(
        "--show", type=Path, help="draw the network's inputs as this PNG"
    )

    demo = commands.add_parser("demo", help="serve a page to draw on", parents=[model])
    demo.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    demo.add_argument("--port", type=int, default=7860, help="default: 7860")

    workers = commands.add_parser(
        "workers", help="train with N workers on this machine"
    )
    workers.add_argument("number", type=int, metavar="N", help="number of workers")
    workers.add_argument(
        "chief",
        nargs="*",
        default=["dvc", "repro"],
        metavar="CMD",
        help="command of the first worker, after --; default: dvc repro",
    )
    return parser.parse_args()


def at_least_one(text: str) -> int:
    """Parses a positive number."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of 1 or more")
    return int(text)


def more_than_zero(text: str) -> float:
    """Parses a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:  # Nor is NaN.
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


def absolute(text: str) -> Path:
    """Parses a path, which stays the same when the current folder changes."""
    return Path(text).expanduser().absolute()


def find_project() -> Path:
    """Returns the folder of the project: the current folder, or one above it.

    Raises:
      InputError: If neither the current folder nor one above has a dvc.yaml.
    """
    current = Path.cwd()
    for folder in (current, *current.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise InputError(f"no dvc.yaml in {current} or above: change to the project first")


def run_model(args: argparse.Namespace) -> None:
    """Runs a command that needs a model."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Imports less.
    # TensorFlow's C++ core prints while it loads, whatever its settings.
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        from core_mlp.serving import demo, predict

        folder = args.model or find_project() / "models/litert"
        model = predict.load_model(folder.expanduser())
    finally:
        os.dup2(stderr, 2)
    if args.command == "demo":
        demo.serve(model, host=args.host, port=args.port)
        return
    is_complete = predict.predict_files(
        model,
        args.paths,
        top=args.top,
        output_format=args.format,
        invert=args.invert,
        show=args.show,
    )
    if not is_complete:
        sys.exit(1)


def run_experiments(args: argparse.Namespace) -> None:
    """Runs a command that runs the pipeline, or shares its runs."""
    from core_mlp.experiments import recipes, same, seeds, sharing, sweep

    match args.command:
        case "decide":
            run_decide(args)
        case "sweep":
            sweep.run_sweep(args.settings, jobs=args.jobs)
        case "search":
            from core_mlp.experiments.search import run_search

            run_search(
                args.space,
                number=args.trials,
                jobs=args.jobs,
                minutes=args.minutes,
                apply=args.apply,
                name=args.save,
            )
        case "suspects":
            from core_mlp.experiments.suspects import run_suspects

            run_suspects(args.folds, jobs=args.jobs)
        case "same":
            same.compare_outputs(args.base)
        case "recipe":
            recipes.run_recipe(
                args.name, queue=args.queue, num_seeds=args.seeds, jobs=args.jobs
            )
        case "push":
            sharing.push_runs(args.remote)
        case "seeds":
            seeds.run_seeds(args.number, replace=args.replace, jobs=args.jobs)


def run_decide(args: argparse.Namespace) -> None:
    """Decides whether one revision is better than another."""
    from core_mlp.experiments.decide import Budget, decide

    budget = Budget(args.max_seeds, args.jobs, args.minutes)
    result = decide(args.base, args.head, metric=args.metric, budget=budget)
    sys.exit(VERDICT_EXIT_CODES.get(result.word, 0))


def run_report(args: argparse.Namespace) -> None:
    """Runs a command that compares what is in Git."""
    from core_mlp.reporting import report, sweep

    if args.command == "report" and args.experiments:
        sweep.write_sweep()
        return
    results = report.write_report(
        args.base, args.head, with_gate=args.command == "gate"
    )
    failed = [result.rule for result in results if result.outcome == "fail"]
    if failed:
        raise InputError(f"the gate failed: {', '.join(failed)}; see {report.MARKDOWN}")
    if any(result.outcome == "investigate" for result in results):
        sys.exit(INVESTIGATE_EXIT_CODE)


if __name__ == "__main__":
    main()
