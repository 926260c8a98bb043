"""All that differs between a rendered manifest and what is booted of it on one machine. The rest is word for word.

- **Images** are this checkout: its interpreter, its code, and `features/` and the reward programs where the image has
  them. Users and security contexts are the pod's namespace's: there is one user in it.
- **Addresses**: services are names of one pod each in /etc/hosts, as there is no DNS; a node finds the head by the name
  that the operator gives it.
- **Physical resources** are nobody's to give: Ray is told the manifest's processors and memory, and the object store is
  what Ray would take of the pod's memory (30%), since there is no cgroup that it could read it from.
- **Waits** for processes to start are longer and nodes start one after another: they share few processors,
  and a node gives its agents 15 s to say their ports. One that ends at once is started again, as the kubelet would.
- **The autoscaler** is not started: it asks an API server. As many workers stand as `replicas` says.
- **Volumes**: a claim is a folder, a Secret is what the test says, ConfigMaps are as rendered.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
IMAGE_FOLDER = "/opt/foretaste"
IMAGE = (
    (f"{IMAGE_FOLDER}/features", ROOT / "features"),
    (f"{IMAGE_FOLDER}/deployments/rewards.yaml", ROOT / "deployments" / "rewards.yaml"),
)
"""What of the image is not its interpreter: where it is there, and where here."""
IMAGE_ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin:/usr/sbin')}",
    "PYTHONPATH": str(ROOT / "platform"),
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LANG": "C.UTF-8",
}
WAITS = {
    "RAY_raylet_start_wait_time_s": "200",
    "RAY_agent_register_timeout_ms": "200000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_GCS_SERVER_REQUEST_TIMEOUT_SECONDS": "20",
}
