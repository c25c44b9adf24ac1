"""Models of the server's own folder on the Merge page; workers start with its name."""

from __future__ import annotations

import pytest

from merging import requests, server_folder
from merging.checkpoints import write_checkpoint
from merging.families import load_family
from tests.app.conftest import said


@pytest.fixture
def server_files(tmp_path, monkeypatch):
    """A folder of the server's with three models, and their base in a folder of its own."""
    family = load_family("mnist-classes")
    for k, params in enumerate(family.models[:3]):
        write_checkpoint(tmp_path / f"model-{k}.safetensors", params)
    (tmp_path / "bases").mkdir()
    write_checkpoint(tmp_path / "bases" / "base.safetensors", family.base)
    monkeypatch.setenv("ONE_BASIN_FOLDER", str(tmp_path))
    return requests.bundled_family("mnist-classes")


def test_models_of_the_servers_folder_can_be_merged(server_files, open_page, wait_for):
    at = open_page("merge", merge_family="own", merge_view="What they do")
    models = at.multiselect(key="merge_files_server")
    names = [f"model-{k}.safetensors" for k in range(3)]
    assert models.options == ["bases/base.safetensors", *names]
    models.set_value(names[:1]).run()
    assert "1 models are there; 2 to 20 can be merged." in said(at)
    at.multiselect(key="merge_files_server").set_value(names).run()
    at.selectbox(key="merge_base_file_server").set_value("bases/base.safetensors").run()
    at = wait_for(at, lambda at: "Rules" in pills(at), "rules")
    assert {"Task arithmetic", "Gradient matching"} <= set(pills(at)["Rules"])
    assert pills(at)["Models"] == names
    assert not at.error


def test_a_file_that_has_left_the_servers_folder_is_said(
    server_files, open_page, tmp_path, monkeypatch
):
    at = open_page("merge", merge_family="own", merge_view="What they do")
    monkeypatch.setattr(server_folder, "names", lambda _: ["model-1.safetensors"])
    (tmp_path / "model-1.safetensors").unlink()
    at.multiselect(key="merge_files_server").set_value(["model-1.safetensors"]).run()
    assert "'model-1.safetensors': there is no such file on the server" in said(at)
    assert not at.exception


def pills(at):
    return {group.label: group.options for group in at.get("button_group")}
