"""What the README tells a newcomer to type exists, and does what it says on a small world."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from foretaste.cli import main, parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SMALL = {
    "world": {"num_members": 250, "days": 30},
    "training": {"epochs": 1},
    "ranker_training": {"epochs": 1},
}


def commands() -> list[str]:
    """Lines of the README's sh blocks, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").split("\n")
    bare = [re.sub(r"\s+#.*$", "", line).strip() for line in lines]
    return [line for line in bare if line]


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {word for line in commands() if line.startswith("make ") for word in line.split()[1:]}
    assert {"demo", "serve", "test"} <= named <= targets
    assert {"setup", "demo", "test", "check", "bench", "serve", "clean"} <= targets


def test_every_foretaste_command_of_the_readme_parses() -> None:
    lines = [line for line in commands() if line.startswith("foretaste ")]
    assert len(lines) >= 8
    for line in lines:
        parser().parse_args(shlex.split(line)[1:])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_ray_job_of_the_readme_is_one_for_ray_and_for_us() -> None:
    from ray.dashboard.modules.job.cli import stop, submit

    lines = [shlex.split(line)[2:] for line in commands() if line.startswith("ray job ")]
    assert [words[0] for words in lines] == ["submit", "submit", "stop"]
    for name, *words in lines:
        context = {"submit": submit, "stop": stop}[name].make_context(name, words)
        if name == "submit":
            assert context.params["working_dir"] or (ROOT / context.params["runtime_env"]).is_file()
            python, m, foretaste, *said = context.params["entrypoint"]
            assert (python, m, foretaste) == ("python", "-m", "foretaste")
            parser().parse_args(said)


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_documented_setting_exists_and_every_section_is_documented() -> None:
    from foretaste.jobs.settings import Settings
    from foretaste.worlds.config import WorldConfig

    documented = set(re.findall(r"^\| `([a-z_]+)` \|", _body("Settings"), flags=re.MULTILINE))
    assert documented == set(Settings.model_fields)
    planted = _body("The synthetic service, and what is planted in it").split("| parameter |")[1]
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", planted, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"[a-z_]+", row)} == set(WorldConfig.model_fields)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("default")
def test_the_step_by_step_commands_run_in_order_on_a_small_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: None
) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL | {"features_repo": str(ROOT / "features")}))
    monkeypatch.chdir(tmp_path)
    steps = [shlex.split(line)[1:] for line in _section("The same way, step by step")]
    assert [step[0] for step in steps] == ["import", "validate", "prepare", "features", "train", "evaluate"]
    for step in steps:
        assert main([*step, "--config", str(config)]) == 0, step
    assert (tmp_path / ".foretaste" / "evaluation" / "report.html").stat().st_size > 10_000
    counted = {file.stem for file in (tmp_path / ".foretaste" / "metrics").glob("*.prom")}
    assert counted == {"prepare", "features", "train", "evaluate", "training-intent", "training-ranker"}
    assert main(["keys", "create", "--tenant", "acme"]) == 0
    assert main(["doctor", "--config", str(config), "--set", "serving.port=0"]) == 0


def _body(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def _section(title: str) -> list[str]:
    block = re.search(r"^```sh\n(.*?)^```", _body(title), flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    return [re.sub(r"\s+#.*$", "", line).strip() for line in block.group(1).strip().split("\n")]
