"""Make the files of `deployments/NAME` of its deployment.yaml: `make deployments`.

One source, three consumers: `serve deploy` and `serve run` take generated/serve.yaml, verbs take
generated/foretaste.yaml, and the manifests in k8s/ copy all of it by replacements. Nothing is written twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from foretaste.jobs.deployment_config import Deployment, JobConfig, PodSize, WorkersSize
from foretaste.jobs.settings import Settings, validated
from foretaste.ops.files import whole_file
from foretaste.ops.telemetry import say

ENVIRONMENTS = ("local", "staging", "prod")
GENERATED = "generated"
APPLICATION, DEPLOYMENT, IMPORT_PATH = "foretaste", "foretaste", "foretaste.serving.graph:build"
LOCAL_CONFIG = {"config.kubernetes.io/local-config": "true"}
HEADER = "# Made of {source} by `make deployments`; change that file.\n"
MACHINE_HELP = """#
# Ray Serve on one machine, from the repository's root: `serve run deployments/local/serve.yaml`; where a Serve runs
# already: `serve deploy deployments/local/serve.yaml`. Requests need a key: `foretaste keys create`, before or after.
# Arguments: foretaste.serving.config.ServiceConfig; paths are relative to where Serve was started.
#
# Set in the environment before the cluster starts (they are read once; the ratios are of requests a second):
#   RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_THROUGHPUT_OPTIMIZED=1 RAY_SERVE_HAPROXY_NBTHREAD=1
#                              0.2-0.3 becomes 0.8 of a plain uvicorn; needs HAProxy, which listens on all interfaces
#   RAY_worker_niceness=0      otherwise workers run at nice 15
#   RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S=0   otherwise a shutdown takes 30 seconds
#   RAY_AUTH_MODE=disabled     for a cluster on loopback only; otherwise Ray wants a token from every client
#   OMP_NUM_THREADS=1          threads of one replica fight those of another
"""


def read(path: Path) -> Deployment:
    """Read a deployment.yaml. Raises ValueError naming each key that is wrong."""
    try:
        return Deployment.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{path}: " + "; ".join(lines)) from error


def rendered(folder: Path) -> dict[str, str]:
    """Every generated file of an environment's folder, by its path in it. Raises ValueError where a value is wrong."""
    deployment = read(folder / "deployment.yaml")
    base = yaml.safe_load((folder / deployment.based_on).read_text()) if deployment.based_on else {}
    settings = validated(merged(base, deployment.settings), what=str(folder / "deployment.yaml"))
    said = settings.model_dump(mode="json", exclude_unset=True)
    files = {
        f"{GENERATED}/serve.yaml": _text(served(deployment, settings)),
        f"{GENERATED}/foretaste.yaml": _text(said),
        f"{GENERATED}/jobs.yaml": _texts([job_values(deployment, name) for name in deployment.jobs]),
        f"{GENERATED}/values.yaml": _texts([values(deployment)]),
        f"{GENERATED}/environment.env": _head() + "".join(f"{k}={v}\n" for k, v in deployment.variables.items()),
    }
    if deployment.machine:
        on_machine = validated(base, what=str(deployment.based_on))
        files["serve.yaml"] = _head() + MACHINE_HELP + _body(served_on_a_machine(on_machine))
    return files


def served(deployment: Deployment, settings: Settings) -> dict[str, Any]:
    """The Serve application of a cluster: `serve deploy` takes it, and RayService.spec.serveConfigV2 is it."""
    replicas = deployment.service.replicas
    options = {
        "name": DEPLOYMENT,
        "num_replicas": "auto",
        "autoscaling_config": {
            "min_replicas": replicas.fewest,
            "max_replicas": replicas.most,
            "target_ongoing_requests": replicas.target_ongoing_requests,
            "upscale_delay_s": replicas.upscale_delay_seconds,
            "downscale_delay_s": replicas.downscale_delay_seconds,
        },
        "max_replicas_per_node": replicas.per_node,
        "graceful_shutdown_timeout_s": replicas.drain_seconds,
        "ray_actor_options": {"num_cpus": 1.0},
    }
    http = {"host": "0.0.0.0", "port": deployment.service.port}
    return _application(settings, location="EveryNode", http=http, deployments=[options])


def served_on_a_machine(settings: Settings) -> dict[str, Any]:
    """The Serve application of one machine, on loopback."""
    http = {"host": settings.serving.host, "port": settings.serving.port}
    return _application(settings, location="HeadOnly", http=http)


def entrypoint(deployment: Deployment, job: JobConfig) -> str:
    """What a job runs; plain words, as the operator cuts it into them."""
    return " ".join(["python", "-m", "foretaste", *job.arguments, "--config", deployment.settings_path, "--json"])


def job_values(deployment: Deployment, name: str) -> dict[str, Any]:
    """What the manifests of one job take, as a document of kustomize that is never applied."""
    job = deployment.jobs[name]
    spec: dict[str, Any] = {
        "entrypoint": entrypoint(deployment, job),
        "runtimeEnvYAML": yaml.safe_dump({"env_vars": job.variables}, sort_keys=True),
        "entrypointNumCpus": job.cpus,
        "activeDeadlineSeconds": job.deadline_seconds,
        "preRunningDeadlineSeconds": job.start_deadline_seconds,
        "backoffLimit": job.retries,
        "ttlSecondsAfterFinished": job.keep_seconds,
        "workers": _workers(job.workers),
    }
    if job.schedule is not None:
        spec["schedule"] = job.schedule
    return _document("JobValues", name, spec)


def values(deployment: Deployment) -> dict[str, Any]:
    """What the other manifests take."""
    service, storage = deployment.service, deployment.storage
    spec = {
        "environment": deployment.environment,
        "rayVersion": deployment.ray_version,
        "port": service.port,
        "head": _pod(service.head),
        "workers": _workers(service.workers),
        "batchHead": _pod(deployment.batch_head),
        "idleSeconds": service.idle_seconds,
        "graceSeconds": service.grace_seconds,
        "fewestThroughDisruption": service.fewest_through_disruption,
        "storage": {
            "class": storage.class_name,
            "accessMode": storage.access_mode,
            "workspace": f"{storage.workspace_gib}Gi",
            "redisClass": storage.redis_class_name,
            "redis": f"{storage.redis_gib}Gi",
            "redisMemory": f"{storage.redis_memory_gib}gb",
            "redisPodMemory": f"{2 * storage.redis_memory_gib}Gi",  # a rewrite of the file copies what is written
        },
        "places": deployment.places.model_dump(mode="json"),
    }
    return _document("DeploymentValues", "foretaste", spec)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of settings as one; `above` counts where both say something."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def stale(folder: Path) -> list[str]:
    """Generated files of an environment that are not what its deployment.yaml says now."""
    made = rendered(folder)
    there = {str(path.relative_to(folder)) for path in (folder / GENERATED).glob("*") if path.is_file()}
    differ = [
        name for name, text in made.items() if not (folder / name).is_file() or (folder / name).read_text() != text
    ]
    return sorted({*differ, *(there - made.keys())})


def write(folder: Path) -> None:
    """Write the generated files of an environment, each one whole."""
    for name, text in rendered(folder).items():
        with whole_file(folder / name) as partial:
            partial.write_text(text)


def _application(
    settings: Settings, *, location: str, http: dict[str, Any], deployments: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    said = settings.model_dump(mode="json", exclude_unset=True)
    arguments: dict[str, Any] = {"workspace": str(settings.workspace), "features_repo": str(settings.features_repo)}
    for url in ("features_url", "features_registry_url"):
        if getattr(settings, url) is not None:
            arguments[url] = getattr(settings, url)
    if "rule" in said.get("prepare", {}):
        arguments["rule"] = settings.prepare.rule.model_dump(mode="json")
    arguments["serving"] = said.get("serving", {})
    application = {"name": APPLICATION, "route_prefix": "/", "import_path": IMPORT_PATH, "args": arguments}
    return {
        "proxy_location": location,
        "http_options": http,
        "logging_config": {"enable_access_log": False},
        "applications": [application | ({"deployments": deployments} if deployments else {})],
    }


def _document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "annotations": LOCAL_CONFIG}
    return {"apiVersion": "foretaste/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _pod(size: PodSize) -> dict[str, Any]:
    return {
        "cpus": str(size.cpus),
        "memory": f"{size.memory_gib}Gi",
        "ephemeral": f"{size.ephemeral_gib}Gi",
        "shm": f"{size.shared_gib}Gi",
    }


def _workers(size: WorkersSize) -> dict[str, Any]:
    return _pod(size) | {"fewest": size.fewest, "most": size.most}


def _head() -> str:
    return HEADER.format(source="deployment.yaml")


def _body(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=4096, allow_unicode=True)


def _text(value: Any) -> str:
    return _head() + _body(value)


def _texts(documents: Sequence[Any]) -> str:
    return _head() + "---\n".join(_body(one) for one in documents)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or with --check compare, the files of all environments; 1 where they are stale."""
    options = argparse.ArgumentParser(prog="foretaste.jobs.deployments", description=main.__doc__)
    options.add_argument("folder", nargs="?", type=Path, default=Path("deployments"), help="default deployments")
    options.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
    asked = options.parse_args(arguments)
    for name in ENVIRONMENTS:
        old = stale(asked.folder / name)
        if asked.check and old:
            print(f"{asked.folder / name}: stale: {', '.join(old)}; run `make deployments`", file=sys.stderr)
            return 1
        if not asked.check:
            write(asked.folder / name)
            say(f"{asked.folder / name}: {', '.join(old) or 'nothing'} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
