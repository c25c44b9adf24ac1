"""What a request has to pass before Streamlit sees it, and what its answer says to the browser.

Streamlit looks at `server.allowedHosts` for the WebSocket alone, and lets a page load whatever it
names. Here every request has to name an allowed host, so that no foreign name that was pointed at
this machine (DNS rebinding) reaches it; and answers tell the browser to fetch and run only what
this server serves, and to show it in no foreign frame.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from merging.schema.legible import legible

_INDEX = Path(st.__file__).with_name("static") / "index.html"


class AllowedHosts:
    """Refuses requests for hosts that `server.allowedHosts` does not name; an empty list names all.

    Args:
        app: What answers the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        allowed: Sequence[str] = st.get_option("server.allowedHosts") or ["*"]
        named = Headers(scope=scope).get("host", "") if scope["type"] != "lifespan" else None
        if named is None or is_allowed(named, allowed):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(
                f"This server does not answer to the host {legible(named, most=80)!r}. Whoever "
                "runs it can add the host to server.allowedHosts (docs/deployment.md).\n",
                status_code=403,
            )(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


class SafeHeaders:
    """Adds to every answer what keeps a browser from fetching, running or framing anything foreign.

    Args:
        app: What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = {
            "Content-Security-Policy": content_policy(_INDEX.read_text("utf-8")),
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "SAMEORIGIN",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)


def is_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Return whether a request's `Host` is one of those that are allowed, by Streamlit's own rules.

    Args:
        host: The header, with or without a port.
        allowed: Names and addresses; `*.` before a name stands for all inside it, `*` for any.

    Returns:
        Whether it is.

    Example:
        >>> is_allowed("127.0.0.1:8501", ["127.0.0.1"]), is_allowed("evil.example", ["localhost"])
        (True, False)
    """
    try:
        parsed = urlsplit(f"//{host}")
        name, _ = parsed.hostname, parsed.port  # a port that is none raises
    except ValueError:
        return False
    if not name or parsed.netloc != host or "@" in host:
        return False
    return any(_fits(name.rstrip("."), pattern.strip().lower().rstrip(".")) for pattern in allowed)


def _fits(name: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return pattern in ("*", name)


def content_policy(index: str) -> str:
    """Return what a page may fetch and run: this server's own, and the scripts that its page holds.

    Args:
        index: HTML of the page, whose scripts are named by their hashes.

    Returns:
        The value of `Content-Security-Policy`.
    """
    scripts = re.findall(r"<script>(.*?)</script>", index, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    run = " ".join(["'self'", "blob:", "'wasm-unsafe-eval'", *(f"'sha256-{h}'" for h in hashes)])
    return "; ".join([
        "default-src 'self'",
        f"script-src {run}",
        "style-src 'self' 'unsafe-inline'",  # Streamlit and Plotly write styles as they draw
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ])
