"""What the image installs: the package's own dependencies, and those of a cluster, from pyproject.toml."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
print("\n".join([*project["dependencies"], *project["optional-dependencies"]["cluster"]]))
