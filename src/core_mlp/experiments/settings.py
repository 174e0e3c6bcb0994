"""Changes of params.yaml as text, KEY=VALUE, as `dvc exp run -S` takes them."""

import json
from collections.abc import Sequence
from typing import Any

from core_mlp.pipeline.files import parse_yaml


def to_setting(key: str, value: Any) -> str:
    """Returns a value of a parameter (of a group: GROUP.KEY) as KEY=VALUE.

    >>> to_setting("hidden_sizes", [300, 100]), to_setting("schedule", "cosine")
    ('hidden_sizes=[300,100]', 'schedule=cosine')
    """
    is_text = isinstance(value, str)
    return f"{key}={value if is_text else json.dumps(value, separators=(',', ':'))}"


def experiment_command(settings: Sequence[str]) -> list[str]:
    """Returns the command that runs settings as an experiment in the workspace."""
    return ["dvc", "exp", "run", *to_options(settings)]


def to_options(settings: Sequence[str]) -> list[str]:
    """Returns settings as options of `dvc exp run`."""
    return [word for setting in settings for word in ("-S", setting)]


def to_params(settings: Sequence[str]) -> dict[str, Any]:
    """Returns what params.yaml would contain.

    >>> to_params(["epochs=3", "augmentation.shift=1.0", "augmentation.scale=0"])
    {'epochs': 3, 'augmentation': {'shift': 1.0, 'scale': 0}}
    """
    params = {}
    for setting in settings:
        path, text = setting.split("=", 1)
        *groups, key = path.split(".")
        values = params
        for group in groups:
            values = values.setdefault(group, {})
        values[key] = parse_yaml(text)
    return params
