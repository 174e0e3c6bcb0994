"""Runs a module on some of the cores, and ends when the runner does.

    python -m core_mlp.experiments.child PARENT CORES MODULE ARGUMENTS

PARENT is the runner's process ID, CORES a list such as 0,2, ARGUMENTS are the module's.
DVC, for example, would go on if its parent were killed; and it would start its stages
on all cores.
"""

import os
import runpy
import sys
import threading

from core_mlp.pipeline.stage import exit_with_parent


def main() -> None:
    parent, cores, module, *arguments = sys.argv[1:]
    threading.Thread(target=exit_with_parent, args=[int(parent)], daemon=True).start()
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, map(int, cores.split(",")))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
