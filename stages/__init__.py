"""The stages of the pipeline.

Importing this package prepares the environment of a stage before TensorFlow is loaded;
no other module of ours has side effects.
"""

import os
import sys
from pathlib import Path

# A stage runs the code beside it: an experiment's copy, not the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
# TensorFlow logs only errors (only fatal ones with several workers), and does not
# import Keras, which takes seconds.
several = os.environ.keys() & {"TF_CONFIG", "SLURM_STEP_NUM_TASKS"}
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if several else "2")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# A notebook's own backend, for example, is not installed here; figures need none.
os.environ["MPLBACKEND"] = "agg"
# The parent is DVC; the stage ends with it.
os.environ["PARENT_PID"] = str(os.getppid())
