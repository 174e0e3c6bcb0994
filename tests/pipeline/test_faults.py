"""Faults of the real pipeline: killed, started twice, out of disk, not permitted."""

import itertools
import os
import random
import re
import shutil
import time

import psutil
import pytest
import yaml
from helpers import (
    STAGES,
    commit_all,
    run,
    stages_run,
    start,
    try_to_run,
    write_params,
)

# Small outputs, and training that is long enough to be interrupted.
PARAMS = {
    "hidden_sizes": [128],
    "batch_size": 4,
    "epochs": 10,
}
TIMEOUT = 120
# Runs a stage, given its command. DVC's databases, which are larger than the limit, are
# written before.
LIMITED = """\
import resource, runpy, sys
import stages
from core_mlp.pipeline import provenance

describe = provenance.describe_stage

def describe_and_limit(stage):
    record = describe(stage)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, 32 * 1024))
    return record

provenance.describe_stage = describe_and_limit
runpy.run_module(sys.argv[1].split()[-1], run_name="__main__", alter_sys=True)
"""
pytestmark = pytest.mark.usefixtures("real_commands")
copy_numbers = itertools.count()


@pytest.fixture(scope="module")
def reference(pipeline, tmp_path_factory):
    """A repository in which nothing has gone wrong."""
    folder = tmp_path_factory.mktemp("reference") / "repository"
    shutil.copytree(pipeline, folder)
    write_params(folder, **PARAMS)
    run("dvc", "repro", cwd=folder)
    commit_all(folder, "A result")
    return folder


@pytest.fixture(scope="module")
def seconds(reference, tmp_path_factory):
    """How long each stage takes."""
    folder = tmp_path_factory.mktemp("timed") / "repository"
    shutil.copytree(reference, folder)
    names, starts = [], []
    with start("dvc", "repro", "--force", cwd=folder) as process:
        for line in process.stdout:
            if stages_run(line) or line.startswith("Use `dvc push`"):
                names += stages_run(line)
                starts.append(time.monotonic())
    assert process.returncode == 0
    durations = [end - begin for begin, end in itertools.pairwise(starts)]
    return dict(zip(names, durations, strict=True))


@pytest.fixture
def broken_copies(reference, tmp_path_factory):
    """Makes copies in which a stage has to run: nothing of its outputs is left."""
    folder = reference

    def copy_without(stage):
        copy = tmp_path_factory.mktemp("copy") / f"repository{next(copy_numbers)}"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("runs", "tmp"))
        lock = yaml.safe_load((copy / "dvc.lock").read_text())
        for out in lock["stages"][stage]["outs"]:
            path = copy / out["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            md5 = out["md5"]
            cached = copy / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
            cached.unlink(missing_ok=True)
        return copy

    return copy_without


def snapshot(folder):
    """Returns the bytes of dvc.lock and of everything that the stages write."""
    files = [folder / "dvc.lock"]
    for name in ("data", "models", "metrics", "plots"):
        files += [path for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def wait_for(condition):
    deadline = time.monotonic() + TIMEOUT
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.03)
    return result


def find_stage(dvc, stage):
    """Returns the Python process of a stage among the children of a dvc, if any."""
    for child in psutil.Process(dvc.pid).children(recursive=True):
        try:
            if child.cmdline()[1:] == ["-m", f"stages.{stage}"]:
                return child
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return None


def has_ended(process):
    """Tells whether a process has ended, even if it has not been reaped."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill_in_stage(folder, stage, seconds, *, with_dvc):
    """Runs the pipeline and kills a stage, or DVC, some seconds into the stage.

    Returns:
      Whether they had not ended before.
    """
    dvc = start("dvc", "repro", cwd=folder)
    process = wait_for(lambda: find_stage(dvc, stage) or dvc.poll() is not None)
    assert isinstance(process, psutil.Process), dvc.stdout.read()
    time.sleep(seconds)
    # Not after the stage: if killed while it writes dvc.lock, DVC leaves half a file.
    if not has_ended(process):
        (dvc if with_dvc else process).kill()
    dvc.communicate()
    # A stage ends when its DVC is killed.
    wait_for(lambda: has_ended(process))
    return dvc.returncode != 0


def finish(folder):
    """Runs the pipeline to its end."""
    output = run("dvc", "repro", cwd=folder)
    assert "up to date" in run("dvc", "status", cwd=folder)
    assert run("git", "status", "--porcelain", cwd=folder) == ""
    return output


@pytest.fixture
def report_faults(record_property):
    """Records a line for the final table, then fails if anything was lost."""

    def report(fault, expected, results):
        lost = sum(bool(expected.keys() - result.keys()) for result in results)
        bit_equal = sum(result == expected for result in results)
        record_property("faults", [fault, len(results), lost, bit_equal])
        assert bit_equal == len(results)

    return report


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_with_the_same_bytes(
    reference, seconds, broken_copies, report_faults
):
    folder = reference
    rng = random.Random(0)
    copy, num_kills = broken_copies("train"), 0
    while num_kills < 3:
        delay = rng.uniform(0, seconds["train"])
        if kill_in_stage(copy, "train", delay, with_dvc=num_kills == 1):
            num_kills += 1
        else:
            copy = broken_copies("train")

    finish(copy)

    report_faults(
        "train killed, three times in a row", snapshot(folder), [snapshot(copy)]
    )


@pytest.mark.parametrize(
    "victim", ["train", pytest.param("dvc", marks=pytest.mark.slow)]
)
def test_a_killed_training_resumes_after_its_last_epoch(
    reference, broken_copies, victim
):
    folder = reference
    copy = broken_copies("train")
    # Not only bash: some shells stay alive between DVC and what they start.
    with start("dvc", "repro", cwd=copy, SHELL="/bin/sh") as dvc:
        for line in dvc.stdout:
            if line.startswith("Epoch  1/10"):
                process = find_stage(dvc, "train")
                # Early: the process must notice it before it finishes.
                if victim == "dvc":
                    dvc.kill()
            if line.startswith("Epoch  6/10") and victim == "train":
                process.kill()
    assert dvc.returncode != 0
    # It does not outlive DVC: if it had finished, its state would be gone.
    wait_for(lambda: has_ended(process))

    # In another folder, like a queued experiment.
    other = shutil.copytree(copy, copy.with_name("other"))
    output = finish(other)

    epochs = re.findall(r"^Epoch +(\d+)/10", output, re.M)
    assert epochs == [str(epoch) for epoch in range(11 - len(epochs), 11)]
    assert len(epochs) in ((3, 4) if victim == "train" else range(10))
    assert f"Resuming after epoch {10 - len(epochs)}, from " in output
    assert snapshot(other) == snapshot(folder)


@pytest.mark.slow
def test_a_stage_whose_dvc_was_killed_while_it_starts_does_no_work(broken_copies):
    dvc = start("dvc", "repro", cwd=broken_copies("train"), SHELL="/bin/sh")
    stage = wait_for(lambda: find_stage(dvc, "train"))
    # While it imports TensorFlow, which takes seconds.
    wait_for(lambda: any("tensorflow" in m.path for m in stage.memory_maps()))
    dvc.kill()

    # Reads to the end of the stage, which writes to the same pipe.
    output = dvc.communicate()[0]

    assert "Training" not in output


@pytest.mark.slow
def test_two_trainings_of_the_same_do_not_mix(reference, broken_copies):
    folder = reference
    copies = [broken_copies("train") for _ in range(2)]
    processes = [start("dvc", "repro", cwd=copy) for copy in copies]

    outputs = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    for copy in copies:
        assert snapshot(copy) == snapshot(folder)


@pytest.mark.slow
def test_a_state_that_cannot_be_written_is_one_line_and_loses_nothing(
    reference, tmp_path
):
    folder = reference
    copy = shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "file").touch()
    write_params(copy, **PARAMS | {"epochs": 1})

    failed = try_to_run(
        "dvc", "repro", cwd=copy, CORE_MLP_STATE_DIR=str(tmp_path / "file")
    )

    assert failed.returncode != 0
    assert f"\nerror: {tmp_path}/file: File exists\n" in failed.stdout
    assert "Traceback" not in failed.stdout
    run("git", "checkout", "--quiet", ".", cwd=copy)
    run("dvc", "checkout", "--quiet", cwd=copy)
    assert snapshot(copy) == snapshot(folder)


def check_failure(folder, copy, stage, problem, *wrapper, **environment):
    """Runs a stage that cannot write its outputs; then finishes when it can.

    Returns:
      The bytes at the end.
    """
    failed = try_to_run(*wrapper, "dvc", "repro", cwd=copy, **environment)

    assert failed.returncode != 0
    errors = [line for line in failed.stdout.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, failed.stdout
    assert problem in errors[0]
    assert "Traceback" not in failed.stdout
    outs = yaml.safe_load((folder / "dvc.lock").read_text())["stages"][stage]["outs"]
    whole = snapshot(folder)
    for name, content in snapshot(copy).items():
        if any(name.startswith(out["path"]) for out in outs):
            assert content == whole[name], name
    finish(copy)
    return snapshot(copy)


@pytest.fixture(scope="module")
def limited_shell(tmp_path_factory):
    """A shell for DVC's `$SHELL` under which the files of a stage may have 32 KiB."""
    folder = tmp_path_factory.mktemp("shell")
    program = folder / "limited.py"
    program.write_text(LIMITED)
    shell = folder / "limited"
    shell.write_text(f'#!/bin/bash\nPYTHONPATH=. exec python {program} "${{@: -1}}"\n')
    shell.chmod(0o755)
    return shell


@pytest.mark.slow
def test_a_fresh_clone_on_one_core_gives_the_same_bytes(reference, tmp_path):
    folder = reference
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(folder), str(clone), cwd=tmp_path)
    core = str(min(os.sched_getaffinity(0)))

    run(
        *("taskset", "--cpu-list", core, "dvc", "repro"),
        cwd=clone,
        PYTHONHASHSEED="7",
        TFDS_DATA_DIR=str(tmp_path / "tfds"),
    )

    assert run("git", "status", "--porcelain", cwd=clone) == ""
    assert snapshot(clone) == snapshot(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "num_kills"),
    [("fetch", 5), ("preprocess", 5), ("train", 20), ("export", 5), ("evaluate", 5)],
)
def test_a_stage_killed_at_any_moment_costs_nothing_but_time(
    reference, seconds, broken_copies, report_faults, stage, num_kills
):
    folder = reference
    rng = random.Random(stage)
    results = []
    while len(results) < num_kills:
        copy = broken_copies(stage)
        delay, with_dvc = rng.uniform(0, seconds[stage]), rng.random() < 0.5
        if kill_in_stage(copy, stage, delay, with_dvc=with_dvc):
            finish(copy)
            results.append(snapshot(copy))
        shutil.rmtree(copy)

    report_faults(f"{stage} killed", snapshot(folder), results)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_one_line_and_the_next_run_finishes_the_job(
    reference, broken_copies, limited_shell, report_faults, stage
):
    folder = reference
    copy = broken_copies(stage)

    result = check_failure(
        folder, copy, stage, "File too large", SHELL=str(limited_shell)
    )

    report_faults(f"{stage} out of room", snapshot(folder), [result])


@pytest.mark.slow
def test_a_full_disk_under_dvcs_databases_is_one_line(broken_copies, tmp_path):
    shell = tmp_path / "limited"
    shell.write_text('#!/bin/bash\nulimit -f 32\nexec bash "$@"\n')
    shell.chmod(0o755)

    failed = try_to_run("dvc", "repro", cwd=broken_copies("fetch"), SHELL=str(shell))

    assert "\nerror: DVC's database: disk I/O error\n" in failed.stdout
    assert "Traceback" not in failed.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "place"),
    [
        ("fetch", "data"),
        ("preprocess", "data"),
        ("train", "models"),
        ("export", "models"),
        ("evaluate", "plots"),
    ],
)
def test_a_read_only_folder_is_one_line_and_the_next_run_finishes_the_job(
    reference, broken_copies, report_faults, stage, place
):
    folder = reference
    copy = broken_copies(stage)
    mount = f"mount --bind {place} {place} && mount -o remount,ro,bind {place}"
    if try_to_run("unshare", "--mount", "sh", "-c", mount, cwd=copy).returncode:
        pytest.skip("a folder cannot be mounted read-only by this user")

    result = check_failure(
        *(folder, copy, stage, "Read-only file system"),
        *("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"),
    )

    report_faults(f"{stage} in a read-only folder", snapshot(folder), [result])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fetch", "train"])
def test_two_runs_of_the_pipeline_started_together(
    reference, broken_copies, report_faults, stage
):
    folder = reference
    results = []
    for _ in range(3):
        copy = broken_copies(stage)
        processes = [start("dvc", "repro", cwd=copy) for _ in range(2)]
        outputs = [process.communicate()[0] for process in processes]
        assert 0 in [process.returncode for process in processes], outputs
        assert not any("Traceback" in output for output in outputs), outputs
        finish(copy)
        results.append(snapshot(copy))

    report_faults(f"two runs at {stage}", snapshot(folder), results)
