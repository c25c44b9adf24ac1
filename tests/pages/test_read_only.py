"""The app where results cannot be kept: it says so, and works."""

from __future__ import annotations

import pytest

from tests.pages.conftest import charts, said


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    """A folder that nobody can make: its parent is a regular file."""
    file = tmp_path_factory.mktemp("app") / "file"
    file.write_text("in the way")
    return file / "store"


@pytest.mark.usefixtures("nothing_asked")
@pytest.mark.parametrize("page", ["start", "models", "align", "interpolate", "landscape"])
def test_a_notice_says_so_and_packed_results_are_shown(page, open_page):
    at = open_page(page)
    assert not at.exception
    assert not at.error
    assert "Results are kept only until the app ends" in at.warning[0].value
    assert "set ONE_BASIN_STORE to another folder" in at.warning[0].value
    if page != "models":
        assert charts(at)


def test_other_results_are_computed_all_the_same(open_page, wait_for):
    at = open_page("interpolate", pair="two-unit-counterexample", methods=["weight"], seed=4)
    wait_for(at, lambda at: not at.get("progress") and charts(at), "complete picture")
    assert "Computed from Two units by hand" in " ".join(said(at))
    assert len(at.dataframe[-1].value) == 2
