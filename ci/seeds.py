"""Runs the current parameters under several seeds, and summarises the results.

    python -m ci.seeds N

queues the seeds 1 to N as experiments, waits for them, and writes metrics/seeds.json:
mean, standard deviation and 95 % t interval of each metric, and each seed's result.
The noise of training is the spread of these results; the interval in
metrics/evaluate.json is the noise of the test images, for one seed.
"""

import argparse
import re
import subprocess
import time
from pathlib import Path

from tqdm import tqdm

from ci.runs import Run, read_run
from core_mlp import comparing, reports
from core_mlp.errors import InputError, exit_on_bad_input

PATH = Path("metrics/seeds.json")
METRICS = ("test_accuracy", "test_loss", "test_calibration_error")
POLL_SECONDS = 1.0
# Polls without a worker, that is, until one has surely not just started.
MAX_IDLE_POLLS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", type=int, help="of seeds, at least 2")
    number = parser.parse_args().number
    if number < 2:
        raise InputError(f"{number} seeds: at least 2 are needed for a spread")
    seeds = ",".join(map(str, range(1, number + 1)))
    output = run("dvc", "exp", "run", "--queue", "--set-param", f"seed={seeds}")
    names = re.findall(r"Queued experiment '(\S+)'", output)
    run("dvc", "queue", "start")
    runs = sorted(wait_for(names), key=lambda result: result.params["seed"])
    if len({result.identity for result in runs}) > 1:
        raise InputError("the code was changed while the experiments were queued")
    summaries = {
        name: comparing.summarise([result.metrics[name] for result in runs])
        for name in METRICS
    }
    reports.write_json(
        PATH,
        {
            "identity": runs[0].identity,
            "summary": {name: s._asdict() for name, s in summaries.items()},
            "runs": [
                {
                    "seed": result.params["seed"],
                    "metrics": {name: result.metrics[name] for name in METRICS},
                }
                for result in runs
            ],
        },
    )
    print(f"Wrote {PATH}: {number} seeds, mean ± sd (95 % t interval of the mean)")
    for name, summary in summaries.items():
        print(
            f"  {name}: {summary.mean:.4f} ± {summary.sd:.4f} "
            f"({summary.low:.4f} to {summary.high:.4f})"
        )


def wait_for(names: list[str]) -> list[Run]:
    """Waits until queued experiments have ended; returns their results.

    Raises:
      InputError: If one has failed, or nothing works on them.
    """
    results, num_idle = {}, 0
    with tqdm(total=len(names), unit="seed", disable=None) as bar:
        while len(results) < len(names):
            time.sleep(POLL_SECONDS)
            status = run("dvc", "queue", "status")
            num_idle = num_idle + 1 if "Worker status: 0 active" in status else 0
            if num_idle > MAX_IDLE_POLLS:
                raise InputError("the queue has no worker; see `dvc queue status`")
            for name in names:
                row = re.search(rf"^.*\b{re.escape(name)}\b.*$", status, re.M)
                if row and "Failed" in row[0]:
                    raise InputError(f"{name} has failed; see `dvc queue logs {name}`")
                if name not in results and row and "Success" in row[0]:
                    results[name] = read_run(name_to_revision(name))
                    seed = results[name].params["seed"]
                    accuracy = results[name].metrics["test_accuracy"]
                    tqdm.write(f"seed {seed}: test accuracy {accuracy:.4f}")
                    bar.update()
    return list(results.values())


def name_to_revision(name: str) -> str:
    """Returns the Git reference of an experiment."""
    references = run("git", "for-each-ref", "--format=%(refname)", "refs/exps")
    return next(ref for ref in references.split() if ref.endswith(f"/{name}"))


def run(*command: str) -> str:
    """Runs a command; returns what it printed.

    Raises:
      InputError: If it fails.
    """
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    if result.returncode:
        last_line = result.stdout.strip().splitlines()[-1:]
        raise InputError(f"{' '.join(command)}: {' '.join(last_line)}")
    return result.stdout


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
