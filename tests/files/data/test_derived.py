"""Data sets made of the bundled ones: what the steps do, and what the splits hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from merging.files.data.batches import concatenate
from merging.files.data.bundled import _derived, is_dataset, load_dataset
from merging.files.data.derived import STEPS, Split, derive
from merging.schema.errors import UnknownNameError

DIGITS = Split(
    "test",
    (np.random.default_rng(0).random((20, 28, 28)) * 255).astype(np.uint8),
    np.arange(20) % 10,
)
NAMES = ("mnist/rotated-20", "mnist/part-2-of-2/noisy-30", "digits/enlarged", "mnist/labels-07")


def changed(*steps: str) -> Split:
    return derive([DIGITS, DIGITS], list(steps))[0][2]


def rows(split):
    return {(x.numpy().tobytes(), int(y)) for x, y in zip(split.inputs, split.targets, strict=True)}


# Splits


@pytest.mark.parametrize("name", NAMES)
def test_no_example_is_in_two_splits_and_all_come_again(name):
    data = load_dataset(name)
    sets = [rows(split) for split in (data.train, data.validation, data.test)]
    assert all(sets)
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    again = _derived(name)
    assert again.fingerprint == data.fingerprint
    assert [split.name for split in (data.train, data.validation, data.test)] == [
        "train", "validation", "test",
    ]  # fmt: skip


def test_training_and_validation_are_the_bundled_training_split_and_test_is_its_test_split():
    whole, made = load_dataset("mnist"), load_dataset("mnist/upright")
    together = concatenate([made.train, made.validation], "train")
    assert torch.equal(together.targets, whole.train.targets)
    torch.testing.assert_close(together.inputs, whole.train.inputs, atol=1e-6, rtol=0)
    torch.testing.assert_close(made.test.inputs, whole.test.inputs, atol=1e-6, rtol=0)


def test_validation_holds_the_same_digits_in_all_sets_of_a_family_and_parts_are_apart():
    parts = [load_dataset(f"mnist/part-{k}-of-2") for k in (1, 2)]
    assert torch.equal(parts[0].validation.inputs, parts[1].validation.inputs)
    assert not rows(parts[0].train) & rows(parts[1].train)
    assert rows(parts[0].train) | rows(parts[1].train) == rows(load_dataset("mnist/upright").train)


def test_a_validation_split_counts_in_the_fingerprint_and_bundled_sets_keep_theirs():
    data = load_dataset("mnist")
    assert data.validation is None
    assert data.fingerprint.startswith("a7524f7a")
    assert len({load_dataset(name).fingerprint for name in ("mnist/upright", *NAMES)}) == 5


# Steps


def test_a_rotation_by_a_right_angle_is_exact_and_counterclockwise():
    assert np.array_equal(changed("rotated-90").images, np.rot90(DIGITS.images, axes=(1, 2)))


def test_a_small_rotation_is_that_of_every_image_by_itself():
    one = ndimage.rotate(DIGITS.images[3].astype(float), 20, reshape=False, order=1)
    assert np.abs(changed("rotated-20").images[3] - one.clip(0, 255)).max() <= 0.51


def test_what_is_inverted_or_mirrored_twice_is_as_it_was():
    assert np.array_equal(changed("inverted").images, 255 - DIGITS.images)
    assert np.array_equal(changed("mirrored").images[:, :, 0], DIGITS.images[:, :, -1])
    for step in ("inverted", "mirrored"):
        assert np.array_equal(changed(step, step).images, DIGITS.images)


def test_noise_replaces_its_share_of_the_pixels():
    share = (changed("noisy-30").images != DIGITS.images).mean()
    assert share == pytest.approx(0.3 * 255 / 256, abs=0.02)


def test_thickened_is_no_darker_and_thinned_no_lighter_anywhere():
    assert (changed("thickened").images >= DIGITS.images).all()
    assert (changed("thinned").images <= DIGITS.images).all()


def test_digits_are_enlarged_into_the_middle_with_their_greys():
    data = load_dataset("digits/enlarged").test.inputs[:, 0] * 78.6 + 33.3
    assert data.shape[1:] == (28, 28)
    torch.testing.assert_close(data[:, :4], torch.zeros(len(data), 4, 28), atol=1e-4, rtol=0)
    small = load_dataset("digits").test.inputs[:, 0]
    torch.testing.assert_close(data[:, 4, 4], small[:, 0, 0] * 255, atol=0.51, rtol=0)
    torch.testing.assert_close(data[:, 23, 23], small[:, 7, 7] * 255, atol=0.51, rtol=0)


def test_labels_are_chosen_in_every_split():
    data = load_dataset("mnist/labels-07")
    for split in (data.train, data.validation, data.test):
        assert set(split.targets.tolist()) == {0, 7}
    assert data.classes == 10


def test_steps_are_taken_from_left_to_right():
    data = load_dataset("mnist/inverted/rotated-20")
    assert data.title == "MNIST, inverted, rotated by 20°"
    assert not torch.equal(data.test.inputs, load_dataset("mnist/rotated-20/inverted").test.inputs)


def test_the_written_form_of_every_step_is_one():
    for step in STEPS:
        assert is_dataset(f"mnist/{step.form}"), step.form


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist/eaten", r"unknown change of a data set 'eaten'; choose from upright, part-1-of-2"),
        ("mnist/part-3-of-2", r"unknown change of a data set 'part-3-of-2'"),
        ("mnist/rotated-360", r"unknown change of a data set 'rotated-360'"),
        ("mnist1d/inverted", r"made of mnist or digits, not of 'mnist1d'"),
        ("nothing", r"unknown data set 'nothing'; choose from mnist, digits"),
    ],
)
def test_names_of_no_data_are_refused(name, message):
    assert not is_dataset(name)
    with pytest.raises(UnknownNameError, match=message):
        load_dataset(name)
