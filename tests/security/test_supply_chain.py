"""What is installed is listed and asked about; an audit that nobody answered is never a pass."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from foretaste.jobs.audit import (
    CLEAN,
    FOUND,
    KNOWN_BAD,
    NOT_ASKED,
    WRONG_CALL,
    Accepted,
    accepted_of,
    audit,
    judged,
    main,
)
from foretaste.jobs.sbom import PACKAGE, bill, parts_of, pins_of, written
from foretaste.ops.redis_server import free_port

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 1)


class Advisories(ThreadingHTTPServer):
    """An OSV on loopback that knows what it is given: ids by package."""

    def __init__(self, known: dict[str, str]) -> None:
        class Asked(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fault = known.get(asked["package"]["name"])
                told = {} if fault is None else {"vulns": [_advisory(fault, asked["package"]["name"])]}
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Asked)
        self.flags = ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{self.server_port}/v1/query"]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def _advisory(name: str, package: str) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "99.0"}]
    affected = {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": name, "summary": "bad", "details": "bad", "affected": [affected]}


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "pins.txt"
    path.write_text("rich==15.0.0\ntorch==2.13.0\n")
    return path


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Advisories]:
    found = Advisories(request.param)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("service", "code", "words"),
    [
        ({"django": "PYSEC-1"}, CLEAN, "2 pins, 0 advisories"),
        ({"django": "PYSEC-1", "rich": "PYSEC-2"}, FOUND, "rich 15.0.0: PYSEC-2; mended in 99.0"),
        ({}, NOT_ASKED, "the service does not know that django 2.0 is bad"),
    ],
    indirect=["service"],
)
def test_pip_audit_and_a_service_that_knows_something_nothing_or_too_little(
    service: Advisories, code: int, words: str, pins: Path
) -> None:
    verdict = audit(pins, [], today=TODAY, service=service.flags)
    assert (verdict.code, words in "\n".join(verdict.lines)) == (code, True), verdict


def test_a_service_that_does_not_answer_is_said_to_be_and_has_an_exit_code_of_its_own(
    pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1/query"
    accepted = str(ROOT / "deployments/image/advisories.yaml")
    assert main([str(pins), "--service", "osv", "--osv-url", nowhere, "--accepted", accepted]) == NOT_ASKED
    assert "this is no pass" in capsys.readouterr().err
    assert main([str(pins.parent / "absent.txt"), "--accepted", accepted]) == WRONG_CALL


def row(name: str, *ids: str, skipped: str | None = None) -> dict[str, Any]:
    if skipped is not None:
        return {"name": name, "skip_reason": skipped}
    faults = [{"id": one, "aliases": [f"CVE-{one}"], "fix_versions": ["2"]} for one in ids]
    return {"name": name, "version": "1", "vulns": faults}


BAD = row(KNOWN_BAD[0], "PYSEC-1")


def test_a_pin_that_was_skipped_or_left_out_of_the_answer_is_no_pass() -> None:
    assert judged([BAD, row("a"), row("b", skipped="not on PyPI")], 2, [], today=TODAY).code == NOT_ASKED
    assert judged([BAD, row("a")], 2, [], today=TODAY).code == NOT_ASKED
    assert judged([BAD, row("a"), row("b")], 2, [], today=TODAY).code == CLEAN
    assert judged([BAD, row("a", "X"), row("b", skipped="gone")], 2, [], today=TODAY).code == FOUND


def test_an_advisory_is_lived_with_until_its_day_and_no_longer(tmp_path: Path) -> None:
    accepted = [Accepted("CVE-X", "is not called", date(2026, 11, 1))]
    verdict = judged([BAD, row("a", "X")], 1, accepted, today=TODAY)
    assert verdict.code == CLEAN
    assert "is not called" in verdict.lines[0]
    assert judged([BAD, row("a", "X")], 1, accepted, today=date(2026, 11, 2)).code == FOUND
    path = tmp_path / "advisories.yaml"
    path.write_text("accepted: [{id: X, why: '', until: 2026-12-01}]\n")
    with pytest.raises(ValueError, match="wanted id, why and until"):
        accepted_of(path)
    assert accepted_of(ROOT / "deployments/image/advisories.yaml") == []


def test_what_is_no_pin_is_refused(tmp_path: Path) -> None:
    for text, words in (("rich>=15\n", "NAME==VERSION"), ("Django==5.0\n", "another release")):
        (tmp_path / "pins.txt").write_text(text)
        with pytest.raises(ValueError, match=words):
            audit(tmp_path / "pins.txt", [], today=TODAY)


def test_the_bill_of_materials_is_valid_and_holds_all_that_the_image_installs_and_nothing_of_development(
    tmp_path: Path,
) -> None:
    pins = pins_of(ROOT / "constraints.txt")
    parts = parts_of(ROOT / "pyproject.toml", pins)
    at = datetime(2026, 11, 1, tzinfo=UTC)
    for name in ("one", "other"):
        written(bill(parts, at=at), tmp_path / f"{name}.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()
    found = json.loads((tmp_path / "one.json").read_text())
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    listed = {one["purl"] for one in found["components"]}
    names = {purl.partition("@")[0].removeprefix("pkg:pypi/") for purl in listed}
    assert {"ray", "torch", "redis", "feast", "psycopg2-binary"} <= names
    assert {"pytest", "ruff", "moto", "hypothesis", "pip-audit"} & names == set()  # mypy comes with feast
    others = {one.name: one.version for key, one in parts.items() if pins.get(key, one.version) != one.version}
    assert {name for name, version in others.items() if version.partition("+")[0] != pins[name]} <= {PACKAGE}
    refs = {one["bom-ref"] for one in found["components"]} | {found["metadata"]["component"]["bom-ref"]}
    wanted = {ref for one in found["dependencies"] for ref in one.get("dependsOn", ())}
    assert wanted <= refs
    assert refs - wanted == {found["metadata"]["component"]["bom-ref"]}  # each is wanted by something


def test_what_is_neither_installed_nor_pinned_and_what_is_no_bill_are_refused(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    told = '[project]\nname = "foretaste"\nversion = "1"\ndependencies = ["packaging"]\n'
    project.write_text(told + '[project.optional-dependencies]\ncluster = ["no-such-package"]\n')
    with pytest.raises(ValueError, match="no-such-package is neither installed nor pinned"):
        parts_of(project, {})
    result = bill(parts_of(project, {"no-such-package": "1"}), at=datetime.now(UTC))
    assert result.metadata.component is not None
    result.metadata.component.mime_type = "none at all"
    with pytest.raises(ValueError, match=r"not CycloneDX 1\.6"):
        written(result, tmp_path / "bill.json")
    assert not (tmp_path / "bill.json").exists()
