"""Every alert fires where its cause is, and nowhere else; every one has a runbook; boards are what their text says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from foretaste.jobs.dashboards import OPERATOR_FILE, as_json, boards, rules_object

FOLDER = Path(__file__).parents[2] / "deployments" / "dashboards"
RULES = FOLDER / "rules.yaml"
CAUSES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "causes.yaml").read_text())

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed; `make servers` installs Debian's"
)


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def check(wanted: dict[str, dict[str, Any]], folder: Path, rules: Path = RULES) -> None:
    """Have promtool look which alerts each cause makes fire; `healthy` none. Rules count as often as series do."""
    # what is not said to come after another group comes in any order, and what it reads may then be too old
    order = [group["name"] for group in yaml.safe_load(rules.read_text())["groups"]]
    files = []
    for every in sorted({cause.get("every", "1m") for cause in wanted.values()}):
        tests = [
            looked_at(name, cause, every=every) for name, cause in wanted.items() if cause.get("every", "1m") == every
        ]
        told = {"rule_files": [str(rules)], "evaluation_interval": every, "group_eval_order": order, "tests": tests}
        files.append(folder / f"every-{every}.yaml")
        files[-1].write_text(yaml.safe_dump(told))
    promtool("test", "rules", *map(str, files))


def looked_at(name: str, cause: dict[str, Any], *, every: str) -> dict[str, Any]:
    expected = [] if name == "healthy" else [{"labels": f'{{alertname="{name}"}}', "value": 1}]
    expression = 'group by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "interval": every,
        "input_series": [{"series": series, "values": values} for series, values in cause["series"].items()],
        "promql_expr_test": [{"expr": expression, "eval_time": cause["at"], "exp_samples": expected}],
    }


@needs_promtool
def test_the_rules_are_valid() -> None:
    promtool("check", "rules", str(RULES))


@needs_promtool
def test_each_cause_makes_its_alert_fire_and_no_other_and_health_makes_none(tmp_path: Path) -> None:
    check({"healthy": CAUSES["healthy"], **CAUSES["causes"]}, tmp_path)


@needs_promtool
def test_a_rule_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES.read_text().replace('foretaste_audit{what="mismatches"}) > 0', "foretaste_audit) > 9"))
    name = "ForetasteParityMismatch"
    with pytest.raises(AssertionError, match=name):
        check({name: CAUSES["causes"][name]}, tmp_path, rules)


HEAD, WORKER = 'up{{cluster="serving",node="head"}}', 'up{{cluster="serving",node="worker",instance="{0}"}}'
HEALTHY = {HEAD.format(): "1x20", WORKER.format("a"): "1x20", WORKER.format("b"): "1x20"}
MACHINERY = {
    "healthy": HEALTHY,
    "ForetasteHeadMissing": HEALTHY | {HEAD.format(): "0x20"},
    "ForetasteTooFewWorkers": HEALTHY | {WORKER.format("b"): "0x20"},
}


@needs_promtool
def test_alerts_on_the_machinery_fire_by_their_causes_too_also_where_nothing_is_left(tmp_path: Path) -> None:
    told = yaml.safe_load((FOLDER.parents[1] / "k8s/components/monitoring/rules.yaml").read_text())
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(told["spec"]))
    assert {rule["alert"] for group in told["spec"]["groups"] for rule in group["rules"]} == MACHINERY.keys() - {
        "healthy"
    }
    wanted = {name: {"at": "10m", "series": series} for name, series in MACHINERY.items()}
    check(wanted, tmp_path, rules)
    nobody = {"at": "10m", "series": {HEAD.format(): "1x20"}}
    check({"ForetasteTooFewWorkers": nobody}, tmp_path, rules)


def test_every_alert_has_a_cause_and_health_has_a_series_for_whatever_alerts_read() -> None:
    assert sorted(CAUSES["causes"]) == sorted(rule["alert"] for rule in alerts())
    known = {re.split(r"[{ ]", series)[0] for series in CAUSES["healthy"]["series"]}
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    read = {name for rule in rules for name in re.findall(r"\b(?:foretaste|ray)_\w+", rule["expr"])}
    assert read - {"foretaste_request_seconds_bucket"} <= known


def test_every_alert_says_how_bad_it_is_and_has_a_section_of_the_runbooks() -> None:
    headings = re.findall(r"^## (\w+)$", (FOLDER / "runbooks.md").read_text(), flags=re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"runbooks.md#{rule['alert'].lower()}"


def test_every_section_of_the_runbooks_says_what_it_means_what_to_look_at_and_what_to_do() -> None:
    text = (FOLDER / "runbooks.md").read_text()
    for section in text.split("\n## ")[1:]:
        assert [word for word in ("**Means.**", "**Look at.**", "**Do.**") if word not in section] == [], section[:60]


def test_the_boards_are_those_that_their_description_makes() -> None:
    found = boards(FOLDER)
    assert sorted(found) == ["learning", "serving"]
    for name, board in found.items():
        assert (FOLDER / f"{name}.json").read_text() == as_json(name, board), "run `make dashboards`"
        panels = json.loads(as_json(name, board))["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels]
        assert len(set(places)) == len(places)


def test_the_operator_is_given_the_same_rules() -> None:
    assert (FOLDER / OPERATOR_FILE).read_text() == rules_object(FOLDER), "run `make dashboards`"
    given = yaml.safe_load(rules_object(FOLDER))["spec"]["groups"]
    assert given == yaml.safe_load(RULES.read_text())["groups"]
