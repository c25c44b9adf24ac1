"""Recipes: what is written is read again, also where an older version wrote it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from merging.results import requests
from merging.results.compute.entry import Entry
from merging.results.recipe import Recipe, compare, read_recipe, result_digest
from merging.schema.errors import MergingError

SUBJECT = requests.bundled_subject("mnist-mlp-32")
RECIPE = Recipe(
    request=requests.CurveRequest(SUBJECT, requests.alignment(SUBJECT, "weight"), lams=5),
    sources={"pair": "mnist-mlp-32"},
    spec="",
    versions={"numpy": "2.0"},
    seconds=1.5,
    result="0" * 64,
)


def test_a_recipe_is_read_as_it_was_written(tmp_path):
    RECIPE.write(tmp_path / "recipe.json")
    assert read_recipe(tmp_path / "recipe.json") == RECIPE


def test_a_recipe_from_before_specs_were_chosen_is_read(tmp_path):
    path = tmp_path / "recipe.json"
    RECIPE.write(path)
    older = json.loads(path.read_text())
    del older["spec"]
    path.write_text(json.dumps(older))
    assert read_recipe(path) == RECIPE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "this is not a recipe .*; give a file that --recipe-out wrote"),
        ("[]", "this is not a recipe"),
        (
            '{"one_basin_recipe": 2}',
            "not a recipe of this version; make it again with --recipe-out",
        ),
        ('{"one_basin_recipe": 1, "request": {}, "sources": {}, "result": ""}', "not a recipe"),
    ],
)
def test_what_is_no_recipe_is_refused(text, message, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(MergingError, match=message):
        read_recipe(path)


def test_times_are_no_part_of_the_digest():
    slow, quick = (Entry({"x": np.ones(3)}, {"seconds": t, "loss": 0.5}) for t in (9.0, 1.0))
    other = Entry({"x": np.ones(3)}, {"seconds": 9.0, "loss": 0.25})
    assert result_digest([slow]) == result_digest([quick]) != result_digest([other])


def test_what_differs_is_said_with_the_versions_that_do():
    other = replace(RECIPE, result="1" * 64, versions={"numpy": "2.1"})
    assert compare(RECIPE, RECIPE) == []
    assert compare(RECIPE, other) == [
        "the result differs: 000000000000 then, 111111111111 now",
        "numpy: 2.0 then, 2.1 now",
    ]


def test_where_no_version_differs_the_machine_is_named():
    (_, why) = compare(RECIPE, replace(RECIPE, result="1" * 64))
    assert why == "all versions are equal: the processor, or the number of threads, differs"
