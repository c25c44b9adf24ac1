"""What ARCHITECTURE.md promises: floors, who may import what, sizes, settings, methods."""

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

# The floor of every module or package of `merging`; a package's modules share its floor.
FLOORS = {
    "errors": 0, "params": 0, "how_to_export": 0, "options": 0, "axes": 0,
    "inlining": 0, "writes": 0, "own_code": 0, "legible": 0, "beneath": 0,
    "spec": 1, "reorder": 1, "permutation": 1, "graph": 1, "records": 1, "cards": 1,
    "methods": 1, "rules": 1,
    "entries": 1, "archives": 1, "pickle_values": 1, "paths": 1, "regions": 1,
    "fusion_records": 1, "ways": 1,
    "processes": 0, "store": 1, "jobs": 1, "audience": 1, "turns": 1, "flights": 1,
    "cluster": 1, "conductor": 1, "compute": 1,
    "symmetry": 2, "matching": 2, "landscape": 2, "fusion": 2, "models": 2, "data": 2,
    "training": 2, "zoo": 2, "families": 2, "checkpoints": 2, "pt2_archive": 2, "bringing": 2,
    "checkpoint_formats": 2, "checkpoint_guards": 2, "checkpoint_shards": 2,
    "checkpoint_stream": 2, "pickle_guard": 2, "zip_guard": 2, "optimizer_state": 2,
    "second_moment": 2,
    "": 3, "__main__": 3, "commands": 3, "recipes": 3, "doctor": 3, "requests": 3, "tasks": 3,
    "worker": 3, "subjects": 3, "visualization": 3, "as_code": 3, "server_folder": 3,
    "forecast": 3, "members": 3, "session": 3, "fuse_command": 3,
}  # fmt: skip
# Who may import whom on the same floor.
NEIGHBOURS = {
    "params": {"errors"},
    "options": {"errors"},
    "own_code": {"errors"},
    "spec": {"records"},
    "permutation": {"reorder", "spec"},
    "paths": {"methods"},
    "ways": {"rules"},
    "regions": {"records"},
    "store": {"entries"},
    "jobs": {"store"},
    "audience": {"jobs"},
    "turns": {"audience", "jobs"},
    "flights": {"cluster", "jobs", "store", "turns"},
    "cluster": {"store"},
    "conductor": {"audience", "cluster", "flights", "jobs", "store", "turns"},
    "compute": {"cluster", "conductor", "jobs", "store"},
    "matching": {"symmetry", "landscape"},
    "fusion": {"checkpoints", "landscape", "matching", "second_moment", "symmetry"},
    "training": {"data", "models"},
    "pickle_guard": {"checkpoint_guards"},
    "zip_guard": {"checkpoint_guards"},
    "checkpoint_formats": {"checkpoint_guards", "optimizer_state", "pickle_guard", "zip_guard"},
    "optimizer_state": {"checkpoint_guards", "pickle_guard"},
    "second_moment": {"checkpoint_guards", "checkpoint_stream", "optimizer_state"},
    "checkpoint_shards": {"checkpoint_guards"},
    "checkpoint_stream": {
        "checkpoint_formats",
        "checkpoint_guards",
        "checkpoint_shards",
        "optimizer_state",
        "zip_guard",
    },
    "checkpoints": {"checkpoint_guards", "checkpoint_stream"},
    "zoo": {"checkpoints", "data", "models", "training"},
    "bringing": {"checkpoints", "data", "models", "pt2_archive"},
    "families": {"checkpoints", "data", "models", "training"},
    "subjects": {"requests"},
    "as_code": {"requests"},
    "forecast": {"doctor"},
    "pt2_archive": {"archives", "checkpoint_guards", "models", "zip_guard"},
    "members": {"requests", "subjects"},
    "tasks": {"doctor", "forecast", "members", "requests", "server_folder", "subjects"},
    "worker": {"tasks"},
    "__main__": {"commands", "fuse_command", "session"},
    "commands": {"recipes", "requests", "session", "subjects"},
    "session": {"recipes", "requests", "subjects", "tasks"},
    "fuse_command": {"commands", "requests", "session"},
    "recipes": {"requests"},
}
# What the interface process holds: none of these may load torch, directly or through others.
WITHOUT_TORCH = (
    "merging",
    "merging.requests",
    "merging.as_code",
    "merging.server_folder",
    "merging.visualization",
    "merging.compute",
)
# The only modules that may know a library, or what lies behind the guards.
ALONE = {
    "dask": {"merging.cluster"},
    "distributed": {"merging.cluster", "merging.conductor", "merging.flights"},
    "sqlite3": {"merging.store"},
    "scipy.optimize": {"merging.matching.assignment"},
    "merging.checkpoint_formats": {"merging.checkpoint_stream"},
}
PAGE_LINES = 120  # the aim is 80
MODULE_LINES = 560  # lines with something on them; the aim is 300


@cache
def sources() -> dict[str, Path]:
    """Every module of the app and the package, by its dotted name."""
    paths = [ROOT / "app.py", *(ROOT / "pages").rglob("*.py"), *(ROOT / "merging").rglob("*.py")]
    return {_dotted(path): path for path in paths if path.exists()}


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


def package_modules() -> list[str]:
    return [name for name in sources() if within(name, "merging")]


def page_scripts() -> list[str]:
    return [
        name for name in sources() if re.fullmatch(r"pages\.\w+", name) and name != "pages.shared"
    ]


def shared_modules() -> list[str]:
    return [name for name in sources() if within(name, "pages.shared")]


def part(module: str) -> str:
    """`matching` of `merging.matching.weight`; nothing of `merging` itself."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", package_modules())
def test_imports_only_from_floors_below(module):
    own = part(module)
    assert own in FLOORS, f"{module} has no floor yet; give it one here and in ARCHITECTURE.md"
    for name in imports(module):
        other = part(name)
        if not within(name, "merging") or other == own:
            continue
        below = FLOORS[other] < FLOORS[own]
        assert below or other in NEIGHBOURS.get(own, set()), f"{module} imports {name}"


@pytest.mark.parametrize("module", package_modules())
def test_the_package_knows_neither_streamlit_nor_the_pages(module):
    strangers = {"streamlit", "pages", "app"}
    assert not {name for name in imports(module) if name.split(".")[0] in strangers}


def test_no_method_imports_another():
    methods = {f"merging.matching.{name}" for name in _method_names()}
    for method in methods & set(sources()):
        assert not imports(method) & methods, method


@pytest.mark.parametrize("module", page_scripts())
def test_a_page_imports_only_what_pages_share_and_the_package_by_its_top_level(module):
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            plain = (
                name in {"streamlit", "merging"} or name.split(".")[0] in sys.stdlib_module_names
            )
            assert plain or within(name, "pages.shared"), f"{module} imports {name}"


@pytest.mark.parametrize("module", shared_modules())
def test_what_pages_share_imports_no_page(module):
    assert not {n for n in imports(module) if within(n, "pages") and not within(n, "pages.shared")}


@pytest.mark.parametrize("module", page_scripts())
def test_a_page_has_no_class_no_cache_and_at_most_a_screen_or_two(module):
    assert not [node.name for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)]
    text = sources()[module].read_text("utf-8")
    assert "st.cache" not in text
    assert len(text.splitlines()) <= PAGE_LINES


@pytest.mark.parametrize("module", sources())
def test_no_module_is_out_of_hand(module):
    lines = sources()[module].read_text("utf-8").splitlines()
    assert sum(1 for line in lines if line.strip()) <= MODULE_LINES


@pytest.mark.parametrize("module", sorted(set(sources()) - {"merging.__main__"}))
def test_nothing_prints_but_the_command_line(module):
    calls = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    assert "print" not in names


@pytest.mark.parametrize("library", ALONE)
def test_one_module_alone_knows(library):
    users = {m for m in sources() if any(within(name, library) for name in imports(m))}
    users |= {
        module
        for module in sources()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom)
        and any(f"{node.module}.{alias.name}" == library for alias in node.names)
    }
    assert users <= ALONE[library]


def test_torch_files_are_opened_behind_the_guards_only():
    def opens(module: str) -> bool:
        return any(
            isinstance(node, ast.Attribute)
            and node.attr == "load"
            and isinstance(node.value, ast.Name)
            and node.value.id == "torch"
            for node in ast.walk(tree(module))
        )

    assert {module for module in sources() if opens(module)} <= {"merging.checkpoint_formats"}
    assert not {m for m in sources() if imports(m) & {"pickle", "cloudpickle", "joblib"}}


def test_the_interface_process_never_loads_torch():
    code = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch' in sys.modules)"
    assert _run(code).returncode == 0


def test_nothing_that_pages_reach_loads_torch():
    reached: set[str] = set()
    waiting = [*page_scripts(), *shared_modules()]
    while waiting:
        module = waiting.pop()
        if module in reached or module not in sources():
            continue
        reached.add(module)
        if module != "merging":  # its imports are for type checkers, or on first use
            # Importing a module runs the packages that it is in, too.
            names = {".".join(n.split(".")[:k]) for n in imports(module) for k in (1, 2, 3, 4)}
            waiting += names - reached
    assert not {module for module in reached - {"merging"} if "torch" in imports(module)}


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
    from merging.methods import METHOD_CARDS
    from merging.visualization.theme import METHOD_STYLES

    assert list(METHODS) == list(METHOD_CARDS)
    assert set(METHODS) < set(METHOD_STYLES)


def _method_names() -> list[str]:
    from merging.methods import METHOD_CARDS

    return list(METHOD_CARDS)


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
