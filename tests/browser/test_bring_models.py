"""Two checkpoints and examples are uploaded, lined up, and taken away as files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from playwright.sync_api import expect

import merging
from merging.files.checkpoints.write import checkpoint_bytes
from merging.models.state_dict import lerp
from tests.bad_files import (
    bad_examples,
    examples,
    plain_pickle,
    truncated,
    with_code,
    with_nan,
    with_prefix,
)
from tests.browser.conftest import serving
from tests.browser.routes import OWN_CODE, OWN_DATA, OWN_MODEL, ROUTES, outputs, trained

PATIENCE = 60_000  # milliseconds
PAIR = "digits-mlp-256"


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory):
    """The folder whose files the server of these tests opens by name."""
    return tmp_path_factory.mktemp("on-server")


@pytest.fixture(scope="module")
def server(tmp_path_factory, server_folder):
    """A server that was started with a function of its own, and with a folder."""
    folder = tmp_path_factory.mktemp("server")
    (folder / f"{OWN_MODEL.partition(':')[0]}.py").write_text(OWN_CODE)
    settings = {
        "ONE_BASIN_FOLDER": str(server_folder),
        "PYTHONPATH": str(folder),
        "HF_HUB_OFFLINE": "1",
    }
    with serving(folder, "--model", OWN_MODEL, "--data", OWN_DATA, **settings) as address:
        yield address


@pytest.fixture(scope="module")
def pair():
    return merging.load_pair(PAIR)


@pytest.fixture(scope="module")
def files(pair, tmp_path_factory):
    """Model A as safetensors, model B as a wrapped model saves it."""
    folder = tmp_path_factory.mktemp("files")
    merging.write_checkpoint(folder / "a.safetensors", pair.params_a)
    (folder / "b.pt").write_bytes(with_prefix(pair.params_b))
    return folder / "a.safetensors", folder / "b.pt"


def give(page, slot, file, data=None):
    """Upload a file from disk, or one of some bytes under a name."""
    payload = file if data is None else {
        "name": file, "mimeType": "application/octet-stream", "buffer": data,
    }  # fmt: skip
    page.locator(f".st-key-models_file_{slot} input[type=file]").set_input_files(payload)


def accepted(page):
    return page.get_by_text(re.compile(r"8 tensors, 150,794 numbers, fingerprint"))


def choose(page, name):
    """Choose an option of a row of buttons, whose label may have marks without width in it."""
    shown = re.compile(re.escape(name).replace(":", ":\u2060?"))
    button = page.get_by_role("radio", name=shown).or_(page.get_by_role("button", name=shown))
    button.first.click(timeout=3 * PATIENCE)  # it is there once what was uploaded has been read


def open_uploads(page):
    page.goto("/models?models_where=Your+checkpoints")
    expect(page.locator(".st-key-models_file_a input[type=file]")).to_be_attached(timeout=PATIENCE)


def expect_uploaded(page):
    chosen = page.get_by_role("combobox", name="Pair of models")
    expect(chosen).to_have_value("Your checkpoints", timeout=PATIENCE)


def bring(page, files):
    """Upload both models and look at them with their own examples."""
    open_uploads(page)
    for slot, file in zip("ab", files, strict=True):
        give(page, slot, file)
        expect(accepted(page)).to_have_count("ab".index(slot) + 1, timeout=PATIENCE)
    choose(page, "Digits, 8 × 8")
    look = page.get_by_role("button", name="Look at these two")
    expect(look).to_be_visible(timeout=PATIENCE)
    look.click()
    expect_uploaded(page)


def downloaded(page, name, ending, folder: Path):
    """Have a file written, and save what the browser gets."""
    choose(page, name)
    page.get_by_role("button", name="Write the file").click()
    button = page.get_by_role(
        "button", name=re.compile(rf"^Download \S+-weight{re.escape(ending)} \(")
    )
    expect(button).to_be_visible(timeout=PATIENCE)
    with page.expect_download() as event:
        button.click()
    path = folder / event.value.suggested_filename
    event.value.save_as(path)
    return path


def mlp_outputs(params, x):
    for k in range(4):
        x = x @ params[f"layers.{k}.weight"].T + params[f"layers.{k}.bias"]
        x = torch.relu(x) if k < 3 else x
    return x


def test_two_checkpoints_are_lined_up_and_taken_away(page, pair, files, tmp_path):
    bring(page, files)
    expect(page.get_by_text("The prefix 'module.' was cut off all names.")).to_be_visible()
    page.get_by_test_id("stSidebarNavItems").get_by_role("link", name="Align").click()
    expect(page.get_by_text("What each method reached")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(re.compile(r"359 test examples"))).to_be_visible(timeout=PATIENCE)
    expect_uploaded(page)

    with np.load(
        downloaded(page, "Permutation (.npz)", ".npz", tmp_path), allow_pickle=False
    ) as file:
        perms = [file[group] for group in file.files]
    assert [sorted(perm.tolist()) for perm in perms] == [list(range(256))] * 3

    aligned = safetensors.torch.load_file(
        downloaded(page, "Aligned model B", "-aligned.safetensors", tmp_path)
    )
    merged = safetensors.torch.load_file(
        downloaded(page, "Merged model", "-merged.safetensors", tmp_path)
    )
    shapes = {name: value.shape for name, value in pair.params_a.items()}
    assert all(name.startswith("module.") for name in aligned)  # as in the file of B
    aligned = {name.removeprefix("module."): value for name, value in aligned.items()}
    assert {name: value.shape for name, value in aligned.items()} == shapes
    assert {name: value.shape for name, value in merged.items()} == shapes
    x, y = pair.data.test.inputs.flatten(1), pair.data.test.targets
    torch.testing.assert_close(
        mlp_outputs(aligned, x), mlp_outputs(pair.params_b, x), rtol=1e-4, atol=1e-4
    )
    assert not torch.equal(aligned["layers.0.weight"], pair.params_b["layers.0.weight"])
    assert float((mlp_outputs(merged, x).argmax(1) == y).float().mean()) > 0.95
    for name, value in merged.items():
        torch.testing.assert_close(value, (pair.params_a[name] + aligned[name]) / 2)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def expect_refused(page, words):
    alert = page.get_by_test_id("stAlert").filter(has_text=words).first
    expect(alert).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert "Traceback" not in page.inner_text("body")


def test_bad_checkpoints_are_refused_one_by_one(page, pair, files, tmp_path):
    bring(page, files)
    marker = tmp_path / "marker"
    other = merging.load_pair("two-unit-counterexample").params_a
    for name, data, words in (
        ("half.safetensors", truncated(pair.params_a), "half.safetensors"),
        ("code.pt", with_code(marker, pair.params_a), "code.pt"),
        ("plain.pt", plain_pickle(marker), "can run code"),
        ("nan.safetensors", with_nan(pair.params_a, "layers.1.weight"), "layers.1.weight"),
    ):
        give(page, "a", name, data)
        expect_refused(page, words)
        expect(page.get_by_role("button", name="Look at these two")).to_have_count(0)
        expect_uploaded(page)
    assert not marker.exists()
    give(page, "a", "other.safetensors", checkpoint_bytes(other))
    expect_refused(page, re.compile(r"architecture|do not fit"))
    expect(page.get_by_role("button", name="Look at these two")).to_have_count(0)
    give(page, "a", files[0])
    expect(page.get_by_role("button", name="Look at these two")).to_be_visible(timeout=PATIENCE)


def test_identical_files_are_said_to_be_identical(page, files):
    open_uploads(page)
    for slot in "ab":
        give(page, slot, files[0])
    expect_refused(page, "identical: there is nothing to align")


def test_bad_examples_are_refused_one_by_one(page, files):
    open_uploads(page)
    for slot, file in zip("ab", files, strict=True):
        give(page, slot, file)
    choose(page, "A file of mine")
    slot = page.locator(".st-key-models_file_data input[type=file]")
    expect(slot).to_be_attached(timeout=PATIENCE)
    for kind in ("labels-out-of-range", "empty", "wrong-shape", "no-npz"):
        data, words = bad_examples((64,))[kind]
        give(page, "data", f"{kind}.npz", data)
        expect_refused(page, words)
        expect(page.get_by_role("button", name="Look at these two")).to_have_count(0)
    give(page, "data", "good.npz", examples((8, 8), 40))
    expect(page.get_by_text("40 examples of 10 classes")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Look at these two")).to_be_visible(timeout=PATIENCE)


def test_bad_examples_do_not_stand_for_the_good_ones_before(page, files):
    open_uploads(page)
    for slot, file in zip("ab", files, strict=True):
        give(page, slot, file)
    choose(page, "A file of mine")
    give(page, "data", "good.npz", examples((64,), 40))
    look = page.get_by_role("button", name="Look at these two")
    expect(look).to_be_visible(timeout=PATIENCE)
    data, words = bad_examples((64,))["labels-out-of-range"]
    give(page, "data", "bad.npz", data)
    expect_refused(page, words)
    expect(look).to_have_count(0, timeout=3000)


def test_what_is_asked_for_by_a_button_is_followed_to_its_end(page):
    page.goto("/models?pair=two-unit-counterexample")
    compute = page.get_by_role("button", name="Compute")
    expect(compute).to_be_visible(timeout=PATIENCE)
    compute.click()
    expect(page.get_by_text("Memory for it")).to_be_visible(timeout=PATIENCE)


def choose_on_server(page, slot, path):
    """Choose a file of the server's folder."""
    field = page.locator(f".st-key-models_file_{slot}_server input")
    field.click()
    field.fill(path)
    page.get_by_role("option", name=path, exact=True).click()


def midpoint(route, params_a, params_b):
    """Half-way between A and the aligned B, as the library finds it."""
    model = route.make().eval()
    spec = merging.find_symmetry(model, (route.inputs[:2],))
    found = merging.match("weight", model, params_a, params_b, spec=spec)
    assert sum(len(perm) for perm in found.permutations.values()) > 0
    return lerp(params_a, merging.permute(spec, found.permutations, params_b), 0.5)


def hand_over(page, route, slot, path, folder):
    """Upload a file, or choose it in the server's folder."""
    if route.on_server:
        choose_on_server(page, slot, path.relative_to(folder).as_posix())
    else:
        give(page, slot, path)


@pytest.mark.parametrize("name", ROUTES)
def test_two_models_of_every_route_come_back_merged(name, page, settled, server_folder, tmp_path):
    route = ROUTES[name]
    if route.by_name:
        pytest.importorskip(route.by_name.partition(":")[0])
    folder = server_folder if route.on_server else tmp_path
    models = {slot: trained(route, seed=k) for k, slot in enumerate("ab")}
    for slot in models:
        (folder / slot).mkdir()
    files = {slot: route.write(model, folder / slot) for slot, model in models.items()}
    data = route.examples(folder) if route.examples else None

    page.goto("/models?models_where=Your+checkpoints&methods=weight")
    expect(page.locator(".st-key-models_file_a input[type=file]")).to_be_attached(timeout=PATIENCE)
    settled(page)
    if route.architecture or route.by_name:
        page.get_by_role("combobox", name="Architecture").click()
        page.get_by_role("option", name=route.architecture or "By name").click()
    if route.by_name:
        page.get_by_role("textbox", name="Name").fill(route.by_name)
        page.keyboard.press("Enter")
    for k, slot in enumerate(files):
        hand_over(page, route, slot, files[slot], folder)
        read = page.get_by_text(re.compile(r"tensors, [\d,]+ numbers, fingerprint"))
        expect(read).to_have_count(k + 1, timeout=PATIENCE)
    choose(page, "A file of mine" if data else route.data)
    if data:
        hand_over(page, route, "data", data, folder)
    look = page.get_by_role("button", name="Look at these two")
    expect(look).to_be_visible(timeout=PATIENCE)
    look.click()
    expect_uploaded(page)
    page.get_by_test_id("stSidebarNavItems").get_by_role("link", name="Align").click()
    expect(page.get_by_text("What each method reached")).to_be_visible(timeout=PATIENCE)
    file = downloaded(page, "Merged model", "-merged.safetensors", tmp_path)
    expect(page.get_by_test_id("stException")).to_have_count(0)

    merged, expected = route.make().eval(), route.make().eval()
    state = safetensors.torch.load_file(file)
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {route.dtype}
    merged.load_state_dict(state, strict=True)
    given = [
        {
            key: value.to(route.dtype).float() if value.is_floating_point() else value
            for key, value in model.state_dict().items()
        }
        for model in models.values()
    ]
    expected.load_state_dict(midpoint(route, *given), strict=True)
    tolerance = 1e-5 if route.dtype == torch.float32 else 5e-3
    with torch.no_grad():
        found, wanted = outputs(merged, route.inputs), outputs(expected, route.inputs)
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_models_of_the_server_s_function_are_merged(page, settled, tmp_path):
    route = ROUTES["the server's functions"]
    models = [trained(route, seed=k) for k in range(2)]
    files = []
    for k, model in enumerate(models):
        (tmp_path / str(k)).mkdir()
        files.append(route.write(model, tmp_path / str(k)))
    page.goto("/merge?merge_family=Your+checkpoints")
    expect(page.locator(".st-key-merge_files input[type=file]")).to_be_attached(timeout=PATIENCE)
    settled(page)
    page.get_by_role("combobox", name="Architecture").click()
    page.get_by_role("option", name=OWN_MODEL).click()
    page.locator(".st-key-merge_files input[type=file]").set_input_files(files)
    choose(page, OWN_DATA)
    expect(page.get_by_text("Best rule")).to_be_visible(timeout=3 * PATIENCE)  # after all rules
    expect(page.get_by_text("10 test examples").first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_test_id("stException")).to_have_count(0)
