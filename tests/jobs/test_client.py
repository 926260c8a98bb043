"""What the client says when there is no service, or one that refuses."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from foretaste.client.calls import Calls
from foretaste.jobs.client import recommend

LAYOUT = {"hint": "continue", "probability": 0.75}


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
            Calls(f"http://127.0.0.1:{server.server_port}") as client,
            pytest.raises(ConnectionError, match=r"/v1/recommend: 422: .*k: wanted at most 100"),
        ):
            client.recommend(session_id="s", k=1000)
    finally:
        server.shutdown()
        server.server_close()


class _Telling(_Refusing):
    def do_POST(self) -> None:
        answer = {"decision_id": "d1", "items": [], "top_intent": "wants comedy (80%)", "layout": LAYOUT}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer | {"path": self.path}).encode())


def test_what_a_member_is_here_for_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Telling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        recommend(url, member_id=None, session_id="s", k=3, policy=None)
        with Calls(url) as client:
            assert client.intent(session_id="s")["path"] == "/v1/intent"
    finally:
        server.shutdown()
        server.server_close()
    assert "wants comedy (80%); lay the page out to continue (75%)" in capsys.readouterr().err


def test_a_service_that_is_not_there_is_named_and_not_ready() -> None:
    with Calls("http://127.0.0.1:9") as client:
        assert not client.ready()
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9/v1/decisions/d"):
            client.decision("d")
