"""The doors by themselves: which hosts are answered, what pages may run, what may be uploaded."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import tomllib
from pathlib import Path

import pytest
import streamlit as st
from hypothesis import given, strategies
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

from pages.shared import doors, upload_limits
from pages.shared.doors import AllowedHosts, SafeHeaders, content_policy, is_allowed

ROOT = Path(__file__).resolve().parents[2]


def test_the_app_as_it_ships_answers_to_this_machine_s_names_only():
    with (ROOT / ".streamlit" / "config.toml").open("rb") as file:
        allowed = tomllib.load(file)["server"]["allowedHosts"]
    for host in ("localhost", "localhost:8501", "127.0.0.1:8501", "[::1]:8501"):
        assert is_allowed(host, allowed)
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "0"):
        assert not is_allowed(host, allowed)


PIECES = strategies.sampled_from([
    "localhost",
    "a.example.org",
    "example.org",
    "EXAMPLE.org.",
    ":80",
    ":x",
    "@",
    "[::1]",
    "/",
])


@given(strategies.lists(PIECES, max_size=3).map("".join))
def test_hosts_are_judged_as_streamlit_judges_those_of_its_websocket(host):
    patterns = ["localhost", "*.example.org", "::1"]
    before = st.get_option("server.allowedHosts")
    st.config.set_option("server.allowedHosts", patterns)
    try:
        assert is_allowed(host, patterns) == is_host_allowed(host)
    finally:
        st.config.set_option("server.allowedHosts", before)


def answered(kind, **scope) -> list[dict]:
    """What is sent for a request to a door before an app that answers anything."""
    sent: list[dict] = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(kind(app)({"type": "http", "method": "GET", "path": "/", "headers": []} | scope,
                          receive, send))  # fmt: skip
    return sent


@pytest.fixture
def _one_host(monkeypatch):
    options = {"server.allowedHosts": ["localhost"], "server.maxUploadSize": 64}
    monkeypatch.setattr(doors.st, "get_option", options.get)


@pytest.mark.usefixtures("_one_host")
def test_a_foreign_host_is_refused_in_words_and_its_websocket_closed():
    headers = [(b"host", b"evil.example")]
    start, body = answered(AllowedHosts, headers=headers)
    assert start["status"] == 403
    assert b"does not answer to the host 'evil.example'" in body["body"]
    assert answered(AllowedHosts, type="websocket", headers=headers) == [
        {"type": "websocket.close", "code": 1008}
    ]
    assert answered(AllowedHosts, headers=[(b"host", b"localhost:1")])[0]["status"] == 200


def test_headers_are_set_whatever_an_app_says():
    (start,) = answered(SafeHeaders)
    names = {name.decode() for name, _ in start["headers"]}
    assert names == {
        "content-security-policy", "referrer-policy", "x-content-type-options", "x-frame-options",
    }  # fmt: skip


def test_scripts_inside_the_page_are_named_by_their_hashes():
    policy = content_policy("<script>\n a = 1\n</script><script src='x'></script>")
    digest = base64.b64encode(hashlib.sha256(b"\n a = 1\n").digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 1


class Runtime:
    """Streamlit's runtime with one session, that holds one file."""

    def __init__(self, size: int) -> None:
        file = type("File", (), {"data": bytes(size)})
        self.uploaded_file_mgr = type("Manager", (), {"file_storage": {"s": {"old": file}}})

    def is_active_session(self, session: str) -> bool:
        return session == "s"


@pytest.mark.usefixtures("_one_host")
@pytest.mark.parametrize(
    ("path", "method", "length", "status"),
    [
        ("/_stcore/upload_file/s/new", "PUT", 60 << 20, 413),
        ("/base/_stcore/upload_file/s/new", "PUT", 60 << 20, 413),
        ("/_stcore/upload_file/s/new", "PUT", None, 413),
        ("/_stcore/upload_file/s/old", "PUT", 60 << 20, 200),
        ("/_stcore/upload_file/s/new", "DELETE", 60 << 20, 200),
        ("/_stcore/upload_file/none/new", "PUT", 60 << 20, 200),
        ("/_stcore/upload_file/s/new", "PUT", 10, 200),
    ],
)
def test_an_upload_is_refused_before_it_is_read(monkeypatch, path, method, length, status):
    runtime = Runtime(350 << 20)
    monkeypatch.setattr(upload_limits, "get_instance", lambda: runtime)
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    sent = answered(upload_limits.UploadLimits, path=path, method=method, headers=headers)
    assert sent[0]["status"] == status
    assert ("s" in upload_limits._refused) == (status == 413)  # until another file is taken
    upload_limits._refused.clear()


@pytest.mark.usefixtures("_one_host")
def test_uploads_that_are_on_their_way_count(monkeypatch):
    runtime = Runtime(250 << 20)
    monkeypatch.setattr(upload_limits, "get_instance", lambda: runtime)
    statuses: list[int] = []

    async def app(scope, receive, send):
        await asyncio.sleep(0.1)
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def put(limits, file):
        async def send(message):
            if "status" in message:
                statuses.append(message["status"])

        scope = {
            "type": "http", "method": "PUT", "path": f"/_stcore/upload_file/s/{file}",
            "headers": [(b"content-length", str(60 << 20).encode())],
        }  # fmt: skip
        await limits(scope, None, send)

    async def all_at_once():
        limits = upload_limits.UploadLimits(app)
        await asyncio.gather(*(put(limits, f"new-{k}") for k in range(5)))

    asyncio.run(all_at_once())
    assert sorted(statuses) == [204, 204, 413, 413, 413]
