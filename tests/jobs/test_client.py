"""What the client says when there is no service, or one that refuses."""

from __future__ import annotations

import http.server
import threading

import pytest

from foretaste.jobs.client import Client


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(422)
        self.end_headers()
        self.wfile.write(b'{"detail": "k: wanted at most 100"}')

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_refusal_is_told_in_the_words_of_the_service() -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            Client(f"http://127.0.0.1:{server.server_port}") as client,
            pytest.raises(ConnectionError, match=r"/v1/recommend: 422: .*k: wanted at most 100"),
        ):
            client.recommend(session_id="s", k=1000)
    finally:
        server.shutdown()
        server.server_close()


def test_a_service_that_is_not_there_is_named_and_not_ready() -> None:
    with Client("http://127.0.0.1:9") as client:
        assert not client.ready()
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9/v1/decisions/d"):
            client.decision("d")
