"""Models of the server's folder on the Merge page."""

from __future__ import annotations

import pytest
import torch

from merging.files import server_folder
from merging.files.checkpoints.write import write_checkpoint
from merging.models.architectures.registry import build_model
from merging.models.zoo.families import load_family
from merging.results import requests
from merging.results.requests import canonical
from pages.shared import jobs
from tests.pages.conftest import pick, said

NAMES = [f"model-{k}.safetensors" for k in range(3)]
NORMED = [f"normed/{letter}.safetensors" for letter in "ab"]
NORMED_CONFIG = {
    "architecture": "resnet",
    "width": 4,
    "blocks": 1,
    "classes": 10,
    "norm": "batch",
    "stem_stride": 2,
}
RUN = ["run/step-10.safetensors", "run/step-9.safetensors"]
TRAINED = ["trained/0.pt", "trained/1.pt"]  # with the state of their optimizers


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Three models, and their base in a folder of its own; workers know it from their start."""
    root, family = tmp_path_factory.mktemp("models"), load_family("mnist-classes")
    for name, params in zip(NAMES, family.models[:3], strict=True):
        write_checkpoint(root / name, params)
    (root / "run").mkdir()
    for name, params in zip(RUN, family.models[3:], strict=True):
        write_checkpoint(root / name, params)
    (root / "normed").mkdir()
    for k, name in enumerate(NORMED):
        write_checkpoint(root / name, build_model(NORMED_CONFIG, seed=k).state_dict())
    (root / "bases").mkdir()
    write_checkpoint(root / "bases" / "base.safetensors", family.base)
    (root / "trained").mkdir()
    for name, params in zip(TRAINED, family.models, strict=False):
        family.model.load_state_dict(params)
        optimizer = torch.optim.Adam(family.model.parameters(), lr=1e-4)
        inputs, targets = next(iter(family.data.train))
        torch.nn.functional.cross_entropy(family.model(inputs), targets).backward()
        optimizer.step()
        states = {"model": family.model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(states, root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(server_folder.FOLDER, str(root))
        yield root


def pills(at):
    """Options by the labels of rows of buttons."""
    return {group.label: group.options for group in at.get("button_group")}


def row(at, label):
    """The row of buttons with this label."""
    (group,) = [group for group in at.get("button_group") if group.label == label]
    return group


def test_models_of_the_servers_folder_can_be_merged(open_page, wait_for):
    at = open_page("merge", merge_family="own", merge_view="What they do")
    models = at.multiselect(key="merge_files_server")
    assert models.options == ["bases/base.safetensors", *NAMES, *NORMED, *RUN, *TRAINED]
    models.set_value(NAMES[:1]).run()
    assert "1 model is there; 2 to 20 can be merged." in said(at)
    at.multiselect(key="merge_files_server").set_value(NAMES).run()
    at.selectbox(key="merge_base_file_server").set_value("bases/base.safetensors").run()
    at = wait_for(at, lambda at: "Rules" in pills(at), "rules")
    assert {"Task arithmetic", "Gradient matching"} <= set(pills(at)["Rules"])
    assert pills(at)["Models"] == NAMES
    assert not at.error


def test_checkpoints_of_a_run_are_taken_in_the_order_of_their_numbers(open_page, wait_for):
    at = open_page("merge", merge_family="own", merge_view="What they do")
    at.multiselect(key="merge_files_server").set_value(RUN).run()
    at = wait_for(at, lambda at: "Rules" in pills(at), "rules")
    assert "SWA" not in pills(at)["Rules"]
    at.toggle(key="merge_run").set_value(True).run()
    assert "step-9.safetensors → step-10.safetensors" in said(at)
    assert pills(at)["Models"] == ["step-9.safetensors", "step-10.safetensors"]
    assert {"SWA", "EMA", "LAWA"} <= set(pills(at)["Rules"])
    assert not at.error


def test_running_statistics_of_uploaded_models_can_be_reset_at_once(open_page, wait_for):
    at = open_page("merge", merge_family="own", merge_view="What they do")
    at.multiselect(key="merge_files_server").set_value(NORMED).run()
    at = wait_for(at, lambda at: "Rules" in pills(at), "rules")
    assert jobs.read(requests.SymmetryRequest(canonical(NORMED_CONFIG))) is None
    assert pills(at)["Running statistics"] == ["Merged", "RESET"]
    assert row(at, "Running statistics").value == "reset"
    row(at, "Examples to evaluate on").set_value("none").run()
    assert "Running statistics" not in pills(at)  # there is nothing to take them on


def test_a_file_that_has_left_the_servers_folder_is_said(open_page, monkeypatch):
    monkeypatch.setattr(server_folder, "names", lambda _: ["gone.safetensors"])
    at = open_page("merge", merge_family="own", merge_view="What they do")
    at.multiselect(key="merge_files_server").set_value(["gone.safetensors"]).run()
    assert "'gone.safetensors': there is no such file on the server" in said(at)
    assert not at.exception


def test_curvature_from_the_optimizers_is_offered_where_all_models_have_it(open_page, wait_for):
    at = open_page("merge", merge_family="own", merge_view="Take away", merge_data="none")
    at.multiselect(key="merge_files_server").set_value([TRAINED[0], NAMES[1]]).run()
    at = wait_for(at, lambda at: "Rules" in pills(at), "rules")
    assert "Curvature" not in pills(at)
    assert "Fisher averaging" not in pills(at)["Rules"]  # nothing was uploaded to measure it on
    at.multiselect(key="merge_files_server").set_value(TRAINED).run()
    at = wait_for(at, lambda at: "Curvature" in pills(at), "choice of curvature")
    assert pills(at)["Curvature"] == ["From Adam's second moment"]
    at.button_group(key="merge_rules_seeds_False_optimizer").set_value(["fisher"]).run()
    pick(at, "Make the file").click().run()
    at = wait_for(at, lambda at: at.get("download_button"), "file")
    assert "--rule fisher --order 'merge many' --fisher-from optimizer" in at.code[-1].value
    assert not at.error


def test_curvature_from_examples_comes_first_where_there_are_some(open_page, wait_for):
    at = open_page("merge", merge_family="own", merge_view="What they do")
    at.multiselect(key="merge_files_server").set_value(TRAINED).run()
    at = wait_for(at, lambda at: "Curvature" in pills(at), "choice of curvature")
    assert pills(at)["Curvature"] == ["From examples", "From Adam's second moment"]
    scale = "Training examples × batch size"
    assert scale not in [box.label for box in at.number_input]
    at.button_group(key="merge_curvature_True").set_value("optimizer").run()
    assert scale in [box.label for box in at.number_input]
    assert "Fisher averaging" in pills(at)["Rules"]
    assert not at.exception
