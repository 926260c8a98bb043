"""What the KubeRay operator makes of a Ray pod template: its command, its environment, its probes.

Source: KubeRay 1.7, ray-operator/controllers/ray/common/{pod,job}.go and utils/constant.go.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from foretaste.testing.manifests.objects import Object, quantity

AGENT_PORT, DASHBOARD_PORT, GCS_PORT, SERVE_PORT, METRICS_PORT = 52365, 8265, 6379, 8000, 8080
_ASKED = "wget --tries 1 -T {seconds} -q -O- http://localhost:{port}/{path} | grep success"
NODE_PROBE = _ASKED.format(seconds=2, port=AGENT_PORT, path="api/local_raylet_healthz")
HEAD_PROBE = f"{NODE_PROBE} && {_ASKED.format(seconds=2, port=DASHBOARD_PORT, path='api/gcs_healthz')}"
SERVE_PROBE = f"{NODE_PROBE} && {_ASKED.format(seconds=2, port=SERVE_PORT, path='-/healthz')}"
"""Readiness of a RayService's workers, where the template has no readinessProbe of its own."""


def head_service(one: Object) -> str:
    """Name of the service under which nodes find the head."""
    return f"{one['metadata']['name']}-head-svc.{one['metadata']['namespace']}.svc.cluster.local"


def start_parameters(group: Mapping[str, Any], *, head: str | None, autoscaled: bool) -> dict[str, str]:
    """Options of `ray start`: the manifest's own, then what the operator adds; `head` is None for the head itself."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    given = {
        "block": "true",
        "dashboard-agent-listen-port": str(AGENT_PORT),
        "metrics-export-port": str(METRICS_PORT),
        "num-cpus": str(math.ceil(quantity(limits["cpu"]))),
        "memory": str(int(quantity(limits["memory"]))),
    }
    if "nvidia.com/gpu" in limits:
        given["num-gpus"] = str(limits["nvidia.com/gpu"])
    if head is None:
        given["dashboard-host"] = "0.0.0.0"
        if autoscaled:
            given["no-monitor"] = "true"
    else:
        given["address"] = f"{head}:{GCS_PORT}"
    return given | {key: str(value) for key, value in group["rayStartParams"].items()}


def start_command(parameters: Mapping[str, str], *, head: bool) -> str:
    """The line that the container runs."""
    words = ["ray", "start", *(["--head"] if head else [])]
    flags = {"block", "no-monitor"}
    words += [
        f"--{key}" if key in flags and value == "true" else f"--{key}={value}" for key, value in parameters.items()
    ]
    return " ".join(words)


def environment(one: Object, cluster: Mapping[str, Any], *, head: bool) -> dict[str, str]:
    """What the operator adds to a Ray container's environment, secrets aside."""
    given = {
        "RAY_CLUSTER_NAME": str(one["metadata"]["name"]),
        "RAY_PORT": str(GCS_PORT),
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
        "RAY_TIMEOUT_MS_TASK_WAIT_FOR_DEATH_INFO": "0",
        "RAY_GCS_SERVER_REQUEST_TIMEOUT_SECONDS": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
        "RAY_ADDRESS": f"127.0.0.1:{GCS_PORT}" if head else f"{head_service(one)}:{GCS_PORT}",
    }
    if not head:
        given |= {"FQ_RAY_IP": head_service(one), "RAY_IP": str(one["metadata"]["name"]) + "-head-svc"}
    if (cluster.get("authOptions") or {}).get("mode") == "token":
        given["RAY_AUTH_MODE"] = "token"
    if tolerant := cluster.get("gcsFaultToleranceOptions"):
        if head:
            given |= {"RAY_REDIS_ADDRESS": tolerant["redisAddress"], "RAY_external_storage_namespace": "booted"}
        else:
            given["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"
    if cluster.get("enableInTreeAutoscaling") and (cluster.get("autoscalerOptions") or {}).get("version") == "v2":
        given["RAY_enable_autoscaler_v2"] = "1"
    return given


def waited_for(one: Object) -> str:
    """What the operator's init container of a worker does before it starts."""
    return f"until ray health-check --address {head_service(one)}:{GCS_PORT} >/dev/null 2>&1; do sleep 1; done"


def submission(job: Object, name: str) -> str:
    """What the submitter of a RayJob in K8sJobMode runs; `name` is that of the submission."""
    spec, at = job["spec"], f"--address http://{head_service(job)}:{DASHBOARD_PORT}"
    runtime = json.dumps(yaml.safe_load(spec.get("runtimeEnvYAML") or "{}"))
    told = f"ray job submit {at} --no-wait --runtime-env-json {shlex.quote(runtime)} --submission-id {name}"
    if spec.get("entrypointNumCpus"):
        told += f" --entrypoint-num-cpus {spec['entrypointNumCpus']}"
    return (
        f"if ! ray job status {at} {name} >/dev/null 2>&1; then {told} -- {spec['entrypoint']}; fi; "
        f"ray job logs {at} --follow {name}"
    )
