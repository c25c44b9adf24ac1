from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import merging

ROOT = Path(__file__).resolve().parents[1]


def test_names_are_sorted_and_none_is_listed_twice():
    assert list(merging.__all__) == sorted(set(merging.__all__))


@pytest.mark.parametrize("name", merging.__all__)
def test_a_public_name_resolves_and_dir_has_it(name):
    thing = getattr(merging, name)
    assert thing.__name__ == name
    assert thing.__module__.split(".")[0] == "merging"
    assert name in dir(merging)


@pytest.mark.parametrize("name", merging.__all__)
def test_a_public_name_is_documented(name):
    text = inspect.getdoc(getattr(merging, name)) or ""
    assert text.splitlines()[0].endswith("."), name


@pytest.mark.parametrize(
    "name", [n for n in merging.__all__ if inspect.isfunction(getattr(merging, n))]
)
def test_a_public_function_says_what_it_takes_and_gives(name):
    function = getattr(merging, name)
    text = inspect.getdoc(function) or ""
    if refers := re.search(r"^It takes what `(\w+)` takes", text, re.MULTILINE):
        text = inspect.getdoc(getattr(merging, refers[1])) or ""
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
        assert f"\n    {parameter.name}:" in text, f"{name} does not describe {parameter.name}"


def test_what_type_checkers_see_is_what_there_is():
    text = (ROOT / "merging/__init__.py").read_text("utf-8")
    checked = text.split("if TYPE_CHECKING:")[1].split("_HOMES")[0]
    missing = [name for name in merging.__all__ if name not in checked]
    assert not missing


def test_star_import_gives_all_names():
    code = (
        "import merging; space = {}; exec('from merging import *', space);"
        "import sys; sys.exit(set(merging.__all__) != set(space) - {'__builtins__'})"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'merging' has no attribute 'absent'"):
        _ = merging.absent


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, merging; sys.exit(bool({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
