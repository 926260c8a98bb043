"""The label report of a workspace: stored beside the tables, printed for a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste.jobs.labels import report
from foretaste.jobs.settings import load
from foretaste.ops.files import read_json
from foretaste.testing.builders import prepared_folder, random_interactions, titles_table


def test_the_report_is_stored_and_printed_with_the_thresholds_that_are_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = titles_table(8)
    table = random_interactions(titles)
    prepared = prepared_folder(tmp_path / "prepared", table, titles)
    settings = load(None, [f"workspace={tmp_path}", "labels.recency_days={fresh: 300}", "labels.intents=[recency]"])
    said = report(settings)
    assert read_json(prepared / "labels.json") == said
    assert said["interactions"] == table.num_rows
    assert set(said["intents"]["recency"]["classes"]) == {"fresh", "older"}
    printed = capsys.readouterr().err
    assert "fresh" in printed
    assert "genre" not in printed
