"""params.yaml: typed values, or one line that says what is wrong."""

import re
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, TEST_PARAMS

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.params import (
    FetchParams,
    Params,
    PreprocessParams,
    TrainParams,
    load_params,
)

LIVE = (ROOT / "params.yaml").read_text()
# Each key with its text in the tests' parameters.
LINES = dict(re.findall(r"^(\w+):(.*(?:\n- .*)*)", TEST_PARAMS.read_text(), re.M))


def write(folder: Path, **changes: str | None) -> Path:
    """Writes a params.yaml in which some keys have another text or are left out."""
    lines = {**LINES, **changes}
    path = folder / "params.yaml"
    path.write_text(
        "".join(f"{k}:{v}\n" for k, v in lines.items() if v is not None), "utf-8"
    )
    return path


def test_every_key_of_params_yaml_is_typed_and_has_a_comment():
    lines = [line for line in LIVE.splitlines() if re.match(r"\w", line)]

    assert [line.split(":")[0] for line in lines] == list(yaml.safe_load(LIVE))
    assert set(yaml.safe_load(LIVE)) == set(Params.model_fields)
    for line in lines:
        # At the end of the line, where DVC keeps it when it changes a value.
        assert re.search(r"  # \w", line), line


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-05", 1e-5), ("1e-3", 1e-3), ("1", 1.0), ("0.5", 0.5), (".5", 0.5)],
)
def test_a_number_is_a_float_however_it_is_written(tmp_path, text, value):
    path = write(tmp_path, learning_rate=f" {text}")

    learning_rate = load_params(TrainParams, path).learning_rate

    assert learning_rate == value
    assert type(learning_rate) is float


BAD_VALUES = [
    ("epochs", "abc", "epochs = 'abc': input should be a valid int"),
    ("epochs", "10.0", "epochs = 10.0: input should be a valid int"),
    ("epochs", "'10'", "epochs = '10': input should be a valid int"),
    ("epochs", "true", "epochs = True: input should be a valid int"),
    ("epochs", "0", "epochs = 0: input should be greater than"),
    ("epochs", "", "epochs = None: input should be a valid integer"),
    ("epochs", None, "epochs: this key is missing"),
    ("epoch", "10", "epoch: unknown key"),
    ("epochs", "1\nepochs: 2", 'duplicate key "epochs"'),
    ("epochs", "[1", "not valid YAML"),
    ("epochs", "\x07", "not valid YAML"),
    ("conv_filters", "32", "conv_filters = 32: input should be a valid list"),
    ("conv_filters", "[0]", "conv_filters.0 = 0: input should be greater than or"),
    ("hidden_sizes", "[700, 0]", "hidden_sizes.1 = 0: input should be greater than or"),
    ("hidden_sizes", "[700, wide]", "hidden_sizes.1 = 'wide': input should be a valid"),
    ("learning_rate", "0", "learning_rate = 0: input should be greater than or equal"),
    ("learning_rate", ".nan", "learning_rate = nan: input should be a finite number"),
    ("learning_rate", "fast", "learning_rate = 'fast': input should be a valid number"),
    ("beta_1", "1.0", "beta_1 = 1.0: input should be less than"),
    ("dataset", "../mnist", "dataset = '../mnist': expected the name of a"),
    ("dataset", "-a", "dataset = '-a': expected the name of a"),
    ("image_size", "[28]", "image_size = [28]: expected [height, width] in pixels"),
    ("image_size", "[8, 0]", "image_size.1 = 0: input should be greater than"),
    ("image_size", "28", "image_size = 28: expected [height, width] in pixels"),
    ("channels", "2", "channels = 2: input should be 1 or 3"),
    ("test_size", "0", "test_size = 0: input should be greater than"),
    ("dataset", "true", "dataset = True: input should be a valid"),
    ("precision", "float16", "precision = 'float16': input should be 'float32' or"),
    ("memory_budget", "0", "memory_budget = 0: input should be greater than or equal"),
]


@pytest.mark.parametrize(("key", "text", "problem"), BAD_VALUES)
def test_a_bad_value_is_refused_by_every_stage_in_one_line(
    tmp_path, key, text, problem
):
    path = write(tmp_path, **{key: text and f" {text}"})

    check_refusal(path, problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "expected a mapping"),
        ("- 1", "expected a mapping"),
        ("[" * 1000, "not valid YAML"),
        (TEST_PARAMS.read_text().encode("utf-16").decode("latin-1"), "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "params.yaml"
    path.write_text(content, "latin-1")

    check_refusal(path, problem)


def check_refusal(path, problem):
    for stage_params in (FetchParams, PreprocessParams, TrainParams):
        with pytest.raises(InputError) as error:
            load_params(stage_params, path)
        message = str(error.value)
        assert message.startswith(str(path))
        assert problem in message
        assert "\n" not in message
        assert len(message) < 500


def test_a_name_that_yaml_1_1_reads_as_a_boolean_is_a_string(tmp_path):
    path = write(tmp_path, dataset=" yes")

    assert load_params(FetchParams, path).dataset == "yes"
