"""What ARCHITECTURE.md promises: one direction, who may import what, sizes, settings, methods."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The house from the ground up: a folder imports only from those before it in this list.
ORDER = (
    "merging.schema", "merging.files", "merging.models", "merging.symmetry", "merging.landscape",
    "merging.matching", "merging.fusion", "merging.results", "merging.visualization",
    "merging.cli", "merging", "merging.__main__", "pages.shared", "pages", "app",
)  # fmt: skip
# Inside a folder: a folder in it imports only from those before it; files beside them are free.
INSIDE = {
    "merging.results": ("compute", "requests", "recipe", "as_code", "uploads", "tasks"),
    "merging.matching": ("search", "methods", "many", "checks"),
    "merging.fusion": ("curvature", "rules", "explain", "networks"),
    "merging.models": ("architectures", "graph", "exported", "zoo"),
    "merging.files": ("checkpoints", "data"),
    "merging.landscape": ("evaluate", "statistics", "paths"),
    "merging.schema": ("records", "cards"),
}
# These need no torch, so that the interface process never loads it; nor does what they import.
WITHOUT_TORCH = (
    "merging.schema", "merging.results.requests", "merging.results.compute",
    "merging.results.as_code", "merging.visualization", "pages", "app",
)  # fmt: skip
# Each of these stands on the schema alone.
ON_SCHEMA_ALONE = ("merging.visualization", "merging.results.compute", "merging.files")
# Folders whose files are alternatives: none of them knows another.
ALTERNATIVES = ("merging.matching.methods",)
# The only modules that may know a library.
ALONE = {
    "dask": {"merging.results.compute.cluster"},
    "distributed": {"merging.results.compute"},
    "sqlite3": {"merging.results.compute"},
    "scipy.optimize": {"merging.matching.search.assignment"},
    "streamlit": {"pages", "app"},
}
# What a person reads is written here; so models that are not aligned have one name in all of it.
WORDED = ("merging.schema", "merging.visualization", "merging.cli", "pages")
PAGE_LINES = 80
MODULE_LINES = 400
# What a function does is said as a command: "Return …". Nouns begin otherwise; a few of them.
NO_COMMANDS = {
    "A", "All", "Always", "An", "As", "Both", "Each", "Every", "For", "Groups", "How", "If",
    "Length", "Lines", "Loss", "Losses", "Mean", "Names", "Number", "One", "Positions", "Rows",
    "Seconds", "Similarity", "Some", "That", "The", "This", "Two", "Units", "Values", "Weights",
    "What", "When", "Where", "Whether", "Which", "Who", "Why",
}  # fmt: skip


@cache
def sources() -> dict[str, Path]:
    """Every module of the app and the package, by its dotted name."""
    paths = [ROOT / "app.py", *(ROOT / "pages").rglob("*.py"), *(ROOT / "merging").rglob("*.py")]
    return {_dotted(path): path for path in paths}


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text("utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """Dotted names of all modules that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively in line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in sources() else str(node.module))
    return frozenset(found - {module})


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def folder(module: str) -> str:
    """The longest entry of `ORDER` that a module is in."""
    return max((entry for entry in ORDER if within(module, entry)), key=len)


def inner_folder(module: str, outer: str) -> str:
    """The folder of `outer` that a module is in; empty for the files beside them."""
    name = module.removeprefix(f"{outer}.").split(".")[0]
    return name if name in INSIDE[outer] else ""


def modules_in(*folders: str) -> list[str]:
    return [name for name in sources() if any(within(name, entry) for entry in folders)]


def own(module: str) -> list[str]:
    """Modules of the project that a module imports."""
    return [name for name in sorted(imports(module)) if name.split(".")[0] in ("merging", "pages")]


def page_scripts() -> list[str]:
    return [name for name in sources() if re.fullmatch(r"pages\.(?!shared)\w+", name)]


def test_merging_has_twelve_entries():
    entries = {path.name for path in (ROOT / "merging").iterdir()} - {"__pycache__"}
    folders = {name.split(".")[1] for name in ORDER if re.fullmatch(r"merging\.[a-z]\w+", name)}
    assert entries == folders | {"__init__.py", "__main__.py"}
    assert len(entries) == 12


@pytest.mark.parametrize("module", sources())
def test_imports_only_from_folders_before_its_own(module):
    place = ORDER.index(folder(module))
    above = [name for name in own(module) if ORDER.index(folder(name)) > place]
    assert not above, f"{module} imports {above}"


@pytest.mark.parametrize("module", modules_in(*INSIDE))
def test_inside_a_folder_there_is_one_direction_too(module):
    outer = folder(module)
    mine = inner_folder(module, outer)
    if not mine:
        return
    others = {inner_folder(name, outer) for name in own(module) if within(name, outer)}
    allowed = {"", *INSIDE[outer][: INSIDE[outer].index(mine) + 1]}
    assert others <= allowed, f"{module} imports {others - allowed}"


@pytest.mark.parametrize("module", modules_in(*ON_SCHEMA_ALONE))
def test_stands_on_the_schema_alone(module):
    mine = next(entry for entry in ON_SCHEMA_ALONE if within(module, entry))
    others = [
        name for name in own(module) if not within(name, mine) and folder(name) != "merging.schema"
    ]
    assert not others, f"{module} imports {others}"


@pytest.mark.parametrize("module", modules_in(*ALTERNATIVES))
def test_no_alternative_imports_another(module):
    siblings = set(modules_in(module.rpartition(".")[0]))
    assert not imports(module) & siblings


@pytest.mark.parametrize("module", page_scripts())
def test_a_page_imports_only_what_pages_share_and_what_needs_no_torch(module):
    for name in imports(module):
        plain = name.split(".")[0] in {"streamlit", "merging", *sys.stdlib_module_names}
        assert plain or within(name, "pages.shared"), f"{module} imports {name}"


@pytest.mark.parametrize("module", page_scripts())
def test_a_page_has_no_class_no_cache_and_at_most_a_screen_or_two(module):
    assert not [node.name for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)]
    text = sources()[module].read_text("utf-8")
    assert "st.cache" not in text
    assert len(text.splitlines()) <= PAGE_LINES


@pytest.mark.parametrize("module", sources())
def test_no_module_is_out_of_hand(module):
    assert len(sources()[module].read_text("utf-8").splitlines()) <= MODULE_LINES


@pytest.mark.parametrize("module", modules_in("merging", "pages"))
def test_docstrings_of_functions_are_commands(module):
    first = {
        node.name: words.split()[0].rstrip(".,:")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef)
        and not any("property" in ast.unparse(line) for line in node.decorator_list)
        and (words := ast.get_docstring(node))
    }
    others = {name: word for name, word in first.items() if word in NO_COMMANDS}
    assert not others, f"{module}: {others}"


@cache
def records() -> frozenset[str]:
    """Names of the project's own dataclasses."""
    classes = [n for m in sources() for n in ast.walk(tree(m)) if isinstance(n, ast.ClassDef)]
    return frozenset(
        found.name
        for found in classes
        if any("dataclass" in ast.unparse(decorator) for decorator in found.decorator_list)
    )


@pytest.mark.parametrize("module", sources())
def test_records_of_four_fields_or_more_are_made_by_keyword(module):
    long = [
        f"{ast.unparse(call.func)} in line {call.lineno}"
        for call in ast.walk(tree(module))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).rpartition(".")[2] in records()
        and sum(not isinstance(argument, ast.Starred) for argument in call.args) > 3
    ]
    assert not long, f"{module} gives more than three arguments by position to {', '.join(long)}"


@pytest.mark.parametrize("module", sorted(set(sources()) - {"merging.cli.main"}))
def test_nothing_prints_but_the_command_line(module):
    calls = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    assert "print" not in names


@pytest.mark.parametrize("library", ALONE)
def test_few_know(library):
    users = {m for m in sources() if any(within(name, library) for name in imports(m))}
    strangers = {m for m in users if not any(within(m, home) for home in ALONE[library])}
    assert not strangers


def test_torch_files_are_opened_behind_the_guards_only():
    def opens(module: str) -> bool:
        return any(
            isinstance(node, ast.Attribute)
            and node.attr == "load"
            and isinstance(node.value, ast.Name)
            and node.value.id == "torch"
            for node in ast.walk(tree(module))
        )

    assert not {module for module in sources() if opens(module)}
    assert not {m for m in sources() if imports(m) & {"pickle", "cloudpickle", "joblib"}}


def test_the_interface_process_never_loads_torch():
    reached: set[str] = set()
    waiting = modules_in(*WITHOUT_TORCH)
    while waiting:
        module = waiting.pop()
        if module in reached or module not in sources():
            continue
        reached.add(module)
        if module != "merging":  # its imports are for type checkers, or on first use
            # Importing a module runs the packages that it is in, too.
            names = {".".join(n.split(".")[:k]) for n in imports(module) for k in range(1, 6)}
            waiting += names - reached
    assert not {module for module in reached - {"merging"} if "torch" in imports(module)}


def test_importing_what_the_interface_needs_loads_no_torch():
    names = "merging, merging.results.requests, merging.results.as_code, merging.visualization"
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert _run(code).returncode == 0


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_path_in_the_architecture_exists(page):
    named = 0
    for line in (ROOT / page).read_text("utf-8").splitlines():
        paths = re.findall(r"`([\w.]+/(?:[\w.]+/)*[\w.]*|[\w.]+\.(?:py|md|txt|toml))`", line)
        folder = ROOT / paths[0] if paths and paths[0].startswith("merging/") else ROOT
        named += len(paths)
        for path in paths:  # a row's other paths are in its folder
            assert (ROOT / path).exists() or (folder / path).exists(), f"{page} names {path}"
    assert named


def test_the_architecture_fits_one_page():
    assert len((ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= 80


@pytest.mark.parametrize("module", modules_in("merging", "pages"))
def test_records_that_hold_arrays_compare_by_identity(module):
    """Comparing arrays of several numbers has no one answer, and raises."""
    array = re.compile(r"\b(NDArray|ndarray|Tensor|TensorDict|Params|State)\b")
    for name, node in dataclasses(module).items():
        held = [field for field, kind in fields(node).items() if array.search(kind)]
        by_identity = any("eq=False" in ast.unparse(words) for words in node.decorator_list)
        assert by_identity or not held, f"{name} holds {held}: @dataclass(…, eq=False)"


@pytest.mark.parametrize("module", modules_in(*WORDED))
def test_models_that_are_not_aligned_and_the_aligned_b_are_named_in_one_place(module):
    texts = {
        node.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    built = {text for text in texts if text == "naive" or text.startswith("π(B)")}
    assert not built or module == "merging.schema.cards.titles", f"{module} writes {built}"


def dataclasses(module: str) -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(words).startswith("dataclass") for words in node.decorator_list)
    }


def fields(node: ast.ClassDef) -> dict[str, str]:
    """Names of a dataclass's fields, with their types as they are written."""
    return {
        ast.unparse(line.target): ast.unparse(line.annotation)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation)
    }


def test_public_names_are_sorted_and_there():
    import merging

    assert list(merging.__all__) == sorted(merging.__all__)
    assert set(merging.__all__) <= set(dir(merging))
    assert all(getattr(merging, name) is not None for name in merging.__all__)


def test_no_public_name_is_there_by_accident():
    import merging

    with pytest.raises(AttributeError, match=r"'merging' has no attribute 'absent'"):
        _ = merging.absent


def test_settings_that_keep_a_class_fast_are_in_force():
    wanted = {
        "runner.postScriptGC": False,
        "server.fileWatcherType": "none",
        "server.address": "127.0.0.1",
        "browser.gatherUsageStats": False,
        "theme.base": None,  # so that light or dark follows the system
    }
    names = json.dumps(list(wanted))
    code = (
        "import json, sys, streamlit as st\n"
        f"values = [st.config.get_option(name) for name in json.loads({names!r})]\n"
        "sys.stdout.write(json.dumps(values))"
    )
    assert json.loads(_run(code).stdout) == list(wanted.values())


def test_every_method_has_its_paragraph():
    headings = re.findall(
        r"^## .*\(`(\w+)`\)$", (ROOT / "docs/methods.md").read_text("utf-8"), re.M
    )
    assert sorted(headings) == sorted(_method_names())


def test_cards_and_methods_are_the_same():
    from merging.matching import METHODS
    from merging.schema.cards.matching import METHOD_CARDS
    from merging.visualization.theme import METHOD_STYLES

    assert list(METHODS) == list(METHOD_CARDS)
    assert set(METHODS) < set(METHOD_STYLES)


def _method_names() -> list[str]:
    from merging.schema.cards.matching import METHOD_CARDS

    return list(METHOD_CARDS)


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
