import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.models.architectures.registry import (
    ARCHITECTURES,
    build_model,
    example_inputs,
    infer_config,
)
from merging.models.zoo.pairs import RECIPES
from merging.schema.errors import ArchitectureMismatchError, MergingError, UnknownNameError
from tests.cases import CONFIGS, architecture, few
from tests.oracles import outputs

every_architecture = pytest.mark.parametrize("name", CONFIGS)


@every_architecture
def test_the_config_is_read_off_the_parameters(name):
    assert infer_config(architecture(name).state_dict()) == CONFIGS[name]


@pytest.mark.parametrize("pair", RECIPES)
def test_the_config_of_every_bundled_pair_is_read_off_its_parameters(pair):
    config = RECIPES[pair].config
    with torch.device("meta"):
        params = build_model(config).state_dict()
    assert infer_config(params) == config


@few
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_any_widths_of_a_perceptron_are_read_off_its_parameters(widths):
    config = {"architecture": "mlp", "widths": widths}
    assert infer_config(build_model(config).state_dict()) == config


@every_architecture
def test_a_seed_makes_a_model_and_the_global_state_does_not(name):
    before = torch.random.get_rng_state()
    one, two, other = (build_model(CONFIGS[name], seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@every_architecture
def test_models_come_in_evaluation_mode_and_classify_example_inputs(name):
    model = build_model(CONFIGS[name])
    (x,) = example_inputs(CONFIGS[name], 5, seed=2)
    assert not model.training
    assert outputs(model, model.state_dict(), x).shape == (5, 3)
    assert torch.equal(x, example_inputs(CONFIGS[name], 5, seed=2)[0])
    assert not torch.equal(x, example_inputs(CONFIGS[name], 5, seed=3)[0])


@every_architecture
def test_the_table_names_each_architecture_by_its_key(name):
    entry = ARCHITECTURES[CONFIGS[name]["architecture"]]
    assert entry.name == CONFIGS[name]["architecture"]
    assert entry.title


def test_an_unknown_architecture_is_refused_and_the_choices_are_named():
    with pytest.raises(UnknownNameError, match="unknown architecture 'gpt'; choose from mlp, cnn"):
        build_model({"architecture": "gpt"})
    with pytest.raises(UnknownNameError, match="unknown architecture 'None'"):
        example_inputs({})


@every_architecture
def test_parameters_with_a_name_too_many_or_too_few_are_refused(name):
    params = architecture(name).state_dict()
    fewer = dict(list(params.items())[:-1])
    more = {**params, "extra.weight": torch.zeros(2, 2)}
    for changed in fewer, more:
        with pytest.raises(ArchitectureMismatchError, match="mine belongs to no bundled"):
            infer_config(changed, "mine")


@every_architecture
def test_parameters_with_one_other_shape_are_refused_or_read_as_they_are(name):
    params = architecture(name).state_dict()
    for key, value in params.items():
        if not value.dim():
            continue
        grown = torch.zeros(value.shape[0] + 1, *value.shape[1:])
        with pytest.raises(ArchitectureMismatchError, match="belongs to no bundled architecture"):
            infer_config({**params, key: grown})


def test_the_message_shows_names_shapes_and_what_is_known():
    with pytest.raises(ArchitectureMismatchError) as caught:
        infer_config({"a.weight": torch.zeros(3, 4)}, "the upload")
    message = str(caught.value)
    assert message.startswith("the upload belongs to no bundled architecture: it has 1 tensors")
    assert "a.weight [3, 4]" in message
    assert all(entry.title in message for entry in ARCHITECTURES.values())


def test_no_parameters_at_all_are_refused():
    with pytest.raises(ArchitectureMismatchError, match="it has 0 tensors"):
        infer_config({})


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("cnn", "fc1.weight", (5,)),
        ("cnn", "conv2.weight", (0, 3, 3, 3)),
        ("vgg", "convs.0.weight", ()),
        ("vit", "patches.weight", (32, 1)),
        ("vit", "positions", (4,)),
        ("sequence-cnn", "head.weight", (3,)),
        ("resnet-layer", "stem.weight", ()),
    ],
)
def test_tensors_with_another_number_of_axes_are_refused(name, key, shape):
    params = {**architecture(name).state_dict(), key: torch.zeros(shape)}
    with pytest.raises(MergingError, match="belongs to no bundled architecture"):
        infer_config(params)


def test_blocks_without_numbers_are_refused():
    params = {**architecture("resnet-layer").state_dict(), "blocks.last.weight": torch.zeros(1)}
    with pytest.raises(ArchitectureMismatchError, match="belongs to no bundled architecture"):
        infer_config(params)
