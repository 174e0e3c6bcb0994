"""params.yaml under fire: exact typed values, or one line, for thousands of files."""

import json
import math
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from helpers import TEST_PARAMS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from core_mlp.pipeline import params
from core_mlp.pipeline.errors import InputError

DEFAULTS = yaml.safe_load(TEST_PARAMS.read_text())
# Of the keys of DEFAULTS, those that a file may lack.
OPTIONAL = {"image_size", "channels", "test_size", "quantize"}
STAGE_PARAMS = (params.FetchParams, params.PreprocessParams, params.TrainParams)
ODDITIES = """
~ null yes no on off true True TRUE y n .inf -.inf .nan 1e-3 1e-05 1E3 1. .5 +1 -0
0o17 017 0x1F 0b101 1_000 1,000 12:30:45 2026-11-24 2026-11-24T00:00:00Z = << ? - ! !!
!!int "10" !!float "1" !!str 10 !!binary aGk= !!set {a} !!omap [] !!python/none ~
!!python/object:os.system x &a *a &a [*a] *missing | > @ ` % %YAML 1.1 {} [] [[]] {a: b}
{<<: 1} "10" '10' "\\0" "\\ud800" "a\\nb" # "" '' --- ... mnist MNIST mnist/a:1.0.0 é
float32 bfloat16 float16 1e400 1e-400 1e308 9223372036854775808 [700, 500] [700, 500.0]
[0] [65537] [true]
""".strip()

scalars = (
    st.sampled_from(re.split(r"(?<!!) |\n", ODDITIES))
    | st.integers().map(str)
    | st.integers(-(10**400), 10**400).map(str)
    | st.floats().map(repr)
    | st.floats(1e-32, 1.5).map(repr)
    | st.text(max_size=20)
    | st.text(max_size=20).map(json.dumps)
)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.tuples(scalars, inner).map(lambda pair: f"{{{pair[0]}: {pair[1]}}}")
    ),
    max_leaves=5,
)
huge = st.integers(0, 2000).map(lambda size: f"[{', '.join(['7'] * size)}]")
values = scalars | nested | huge | st.integers(1, 5000).map(lambda size: "9" * size)
keys = st.sampled_from(sorted(DEFAULTS)) | scalars


@st.composite
def files(draw):
    """Draws the text of a file: the defaults, with some lines changed or added."""
    lines = {key: json.dumps(value) for key, value in DEFAULTS.items()}
    for key in draw(st.lists(st.sampled_from(sorted(DEFAULTS)), max_size=2)):
        lines.pop(key, None)
    lines |= draw(st.dictionaries(keys, values, max_size=3))
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    return draw(st.just(text) | st.just(text) | st.just(text) | values)


def is_allowed(key, value):
    """States what the README and params.yaml promise, independently of pydantic."""

    def is_int(number, low, high):
        return type(number) is int and low <= number <= high

    if key == "dataset":
        pattern = (
            r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.+-]+)?(:[0-9]+\.[0-9]+\.[0-9]+)?"
        )
        return type(value) is str and re.fullmatch(pattern, value) is not None
    if key == "precision":
        return value in ("float32", "bfloat16") and type(value) is str
    if key in ("hidden_sizes", "conv_filters"):
        return (
            type(value) is list
            and len(value) <= (64 if key == "hidden_sizes" else 16)
            and all(is_int(size, 1, 65_536) for size in value)
        )
    if key in ("learning_rate", "epsilon", "beta_1", "beta_2"):
        low, high = (0.0, 0.999999) if key.startswith("beta") else (1e-30, 1.0)
        return type(value) in (int, float) and low <= value <= high
    if key == "quantize":
        return type(value) is bool
    if key == "channels":
        return value is None or (type(value) is int and value in (1, 3))
    if key == "image_size":
        return value is None or (
            type(value) is list
            and len(value) == 2
            and all(is_int(size, 1, 65_536) for size in value)
        )
    low, high = {
        "validation_size": (1, 2**31 - 1),
        "test_size": (1, 2**31 - 1),
        "seed": (0, 2**31 - 1),
        "batch_size": (1, 2**20),
        "epochs": (1, 100_000),
        "memory_budget": (1, 2**20),
    }[key]
    return is_int(value, low, high)


def expected_values(text):
    """Returns the values of a file, or None if it must be refused."""
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except Exception:
        return None
    if not isinstance(values, dict) or values.keys() | OPTIONAL != DEFAULTS.keys():
        return None
    if not all(is_allowed(key, value) for key, value in values.items()):
        return None
    return values


def check(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        expected = expected_values(text)
        for stage_params in STAGE_PARAMS:
            if expected is None:
                with pytest.raises(InputError) as error:
                    params.load_params(stage_params, path)
                message = str(error.value)
                assert message.startswith(str(path))
                assert message.isprintable(), message
                assert len(message) < 1000 + len(str(path)), message
            else:
                loaded = params.load_params(stage_params, path).model_dump()
                for key in loaded.keys() & expected.keys():
                    value = loaded[key]
                    is_float = type(DEFAULTS[key]) is float
                    assert value == expected[key]
                    assert type(value) is (float if is_float else type(expected[key]))
                    assert not is_float or math.isfinite(value)


@pytest.mark.slow
@given(files())
@settings(
    max_examples=5000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_thousands_of_files_give_exact_values_or_one_line(text):
    check(text)
