"""Reward programs in a YAML file: read, checked, each error with program, line, what was wanted and what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from foretaste.contracts.config import Frozen
from foretaste.rewards.programs import Program, ProgramError


class RewardConfig(Frozen):
    """Where reward programs are declared."""

    programs: Path = Field(Path("deployments/rewards.yaml"), description="file of reward programs")


def read_programs(path: Path) -> dict[str, Program]:
    """Read the programs of a file by name; all are checked.

    Raises FileNotFoundError, or ValueError naming the file, the line, the program, what was wanted and what was found.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: wanted a file of reward programs")
    return parse_programs(path.read_text(), what=str(path))


def parse_programs(text: str, *, what: str) -> dict[str, Program]:
    """Read the programs that a text declares; `what` names it in errors, which are as those of `read_programs`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{what}: wanted YAML, found {' '.join(str(error).split())}") from error
    top = _entries(root, what, "programs")
    for name, (key, _) in top.items():
        if name != "programs":
            raise ValueError(f"{what}, line {_line(key)}: wanted programs, found {name!r}")
    if "programs" not in top:
        raise ValueError(f"{what}: wanted a mapping with programs, found {sorted(top)}")
    declared = _entries(top["programs"][1], what, "programs by name")
    if not declared:
        raise ValueError(f"{what}, line {_line(top['programs'][0])}: wanted programs by name, found none")
    return {name: _program(name, node, what) for name, (_, node) in declared.items()}


def chosen(programs: dict[str, Program], name: str, *, what: str) -> Program:
    """One program. Raises ValueError naming those that there are."""
    if name not in programs:
        raise ValueError(f"{what}: wanted one of {', '.join(sorted(programs))}, found {name!r}")
    return programs[name]


def _program(name: str, node: yaml.Node, what: str) -> Program:
    lines: dict[tuple[str, ...], int] = {(): _line(node)}
    _lines(node, (), lines, what)
    plain: Any = yaml.SafeLoader("").construct_document(node) if isinstance(node, yaml.MappingNode) else None
    if not isinstance(plain, dict):
        raise ValueError(f"{what}, line {_line(node)}: program {name}: wanted a mapping, found {_found(node)}")
    if "name" in plain:
        raise ValueError(f"{what}, line {lines[('name',)]}: program {name}: name: wanted it as the key alone")
    try:
        program = Program.model_validate({**plain, "name": name})
        assert program.compiled is not None
    except ValidationError as error:
        first = error.errors()[0]
        where = tuple(str(part) for part in first["loc"])
        place = f"program {name}: {'.'.join(where)}: {first['msg']}, found {first['input']!r:.80}"
        raise ValueError(f"{what}, line {_nearest(lines, where)}: {place}") from error
    except ProgramError as error:
        raise ValueError(f"{what}, line {_nearest(lines, tuple(error.where.split('.')))}: {error}") from error
    return program


def _entries(node: yaml.Node | None, what: str, wanted: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        where = "" if node is None else f", line {_line(node)}"
        raise ValueError(f"{what}{where}: wanted a mapping of {wanted}, found {_found(node)}")
    found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in found:
            raise ValueError(f"{what}, line {_line(key)}: {name!r} stands twice, first in line {_line(found[name][0])}")
        found[name] = (key, value)
    return found


def _lines(node: yaml.Node, path: tuple[str, ...], into: dict[tuple[str, ...], int], what: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for name, (key, value) in _entries(node, what, "fields").items():
            into[(*path, name)] = _line(key)
            _lines(value, (*path, name), into, what)


def _nearest(lines: dict[tuple[str, ...], int], where: tuple[str, ...]) -> int:
    while where and where not in lines:
        where = where[:-1]
    return lines[where]


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _found(node: yaml.Node | None) -> str:
    return "nothing" if node is None else f"{getattr(node, 'value', '')!r:.80}"
