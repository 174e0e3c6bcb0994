"""Entry point of every stage."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from core_mlp.pipeline.environment import find_warnings, used_lock
from core_mlp.pipeline.errors import exit_on_input_error
from core_mlp.pipeline.provenance import recorded
from core_mlp.pipeline.text import print_any_text

PARENT_CHECK_SECONDS = 0.2


def run_stage(main: Callable[[], None]) -> None:
    """Runs a stage as a process that ends when DVC does, and records what it ran with.

    `stages/__init__.py` has set `$PARENT_PID` first of all, since DVC may be killed
    during the imports that follow.
    """
    parent = int(os.environ["PARENT_PID"])
    threading.Thread(target=exit_with_parent, args=[parent], daemon=True).start()
    print_any_text()
    for line in find_warnings(os.environ, used_lock()):
        print(line, flush=True)
    stage = Path(sys.argv[0]).stem
    with exit_on_input_error(), recorded(stage):
        main()


def exit_with_parent(parent: int) -> None:
    """Ends this process once its parent has ended, so that no orphan keeps writing."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)
