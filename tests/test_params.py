"""params.yaml: typed values, or one line that says what is wrong."""

from pathlib import Path

import pytest

from core_mlp.errors import InputError
from core_mlp.params import (
    FetchParams,
    Params,
    PreprocessParams,
    TrainParams,
    load_params,
)

ROOT = Path(__file__).parent.parent
DEFAULT = (ROOT / "params.yaml").read_text()


def write_params(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in DEFAULT
    path = folder / "params.yaml"
    path.write_text(DEFAULT.replace(old, new), encoding="utf-8")
    return path


def test_defaults_are_those_of_the_guide(tmp_path):
    path = write_params(tmp_path)

    assert load_params(FetchParams, path) == FetchParams(dataset="mnist")
    assert load_params(PreprocessParams, path) == PreprocessParams(
        validation_size=10_000
    )
    guide = {
        "seed": 22,
        "hidden_sizes": [700, 500],
        "batch_size": 128,
        "epochs": 10,
        "learning_rate": 1e-3,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "precision": "float32",
    }
    assert guide.items() <= load_params(TrainParams, path).model_dump().items()


def test_every_key_has_a_comment():
    lines = DEFAULT.splitlines()
    keys = [line.split(":")[0] for line in lines if line[0].isalpha()]

    assert sorted(keys) == sorted(Params.model_fields)
    for key in keys:
        index = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
        assert lines[index - 1].startswith("# "), key


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-05", 1e-5), ("1e-3", 1e-3), ("1", 1.0), ("0.5", 0.5), (".5", 0.5)],
)
def test_a_number_is_a_float_however_it_is_written(tmp_path, text, value):
    path = write_params(tmp_path, "learning_rate: 0.001", f"learning_rate: {text}")

    learning_rate = load_params(TrainParams, path).learning_rate

    assert learning_rate == value
    assert type(learning_rate) is float


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("epochs: 10", "epochs: abc", "epochs = 'abc': input should be a valid int"),
        ("epochs: 10", "epochs: 10.0", "epochs = 10.0: input should be a valid int"),
        ("epochs: 10", "epochs: '10'", "epochs = '10': input should be a valid int"),
        ("epochs: 10", "epochs: true", "epochs = True: input should be a valid int"),
        ("epochs: 10", "epochs: 0", "epochs = 0: input should be greater than"),
        ("epochs: 10", "epochs:", "epochs = None: input should be a valid integer"),
        ("epochs: 10", "", "epochs: this key is missing"),
        ("epochs: 10", "epoch: 10", "epochs: this key is missing; epoch: unknown key"),
        ("epochs: 10", "epochs: 1\nepochs: 2", 'duplicate key "epochs"'),
        ("epochs: 10", "epochs: [1", "not valid YAML"),
        ("epochs: 10", "epochs: \x07", "not valid YAML"),
        ("- 500", "- 0", "hidden_sizes.1 = 0: input should be greater than or equal"),
        ("- 500", "- wide", "hidden_sizes.1 = 'wide': input should be a valid int"),
        ("0.001", "0", "learning_rate = 0: input should be greater than or equal"),
        ("0.001", ".nan", "learning_rate = nan: input should be a finite number"),
        ("0.001", "fast", "learning_rate = 'fast': input should be a valid number"),
        ("beta_1: 0.9", "beta_1: 1.0", "beta_1 = 1.0: input should be less than"),
        (
            "dataset: mnist",
            "dataset: ../mnist",
            "dataset = '../mnist': expected a name",
        ),
        ("dataset: mnist", "dataset: yes", None),
        ("dataset: mnist", "dataset: true", "dataset = True: input should be a valid"),
        ("float32", "float16", "precision = 'float16': input should be 'float32' or"),
        ("4096", "0", "memory_budget = 0: input should be greater than or equal to 1"),
        (DEFAULT, "", "expected a mapping"),
        (DEFAULT, "- 1", "expected a mapping"),
        (DEFAULT, "[" * 1000, "not valid YAML"),
    ],
)
def test_bad_input_is_refused_by_every_stage_in_one_line(tmp_path, old, new, problem):
    path = write_params(tmp_path, old, new)
    if problem is None:  # A string, in the YAML that DVC writes.
        assert load_params(FetchParams, path).dataset == "yes"
        return
    for stage_params in (FetchParams, PreprocessParams, TrainParams):
        with pytest.raises(InputError) as error:
            load_params(stage_params, path)
        message = str(error.value)
        assert message.startswith(str(path))
        assert problem in message
        assert "\n" not in message
        assert len(message) < 500


def test_a_text_file_of_another_encoding_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(DEFAULT.encode("utf-16"))

    with pytest.raises(InputError, match="not valid YAML"):
        load_params(FetchParams, path)
