"""Which web pages may ask: a browser lets a page read an answer from elsewhere only where that says so (CORS)."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from foretaste.serving.gate import API_KEY
from foretaste.serving.problems import REQUEST_ID

MAX_AGE_SECONDS = 600


def allow_browsers(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these origins (`https://example.org`) ask, with a key and without cookies; no page where none is."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["POST"],
            allow_headers=[API_KEY, REQUEST_ID, "Content-Type"],
            expose_headers=[REQUEST_ID, "Retry-After"],
            max_age=MAX_AGE_SECONDS,
        )
