"""What jobs ask for: word for word what the environment says, ends in time, goes on where it was."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any

from foretaste.jobs.deployment_config import SHELL
from foretaste.testing.manifests.objects import Manifests, called, parse, parse_one, quantity
from foretaste.testing.manifests.pods import Expanded, mounted, pods

TRAINERS = (["train"], ["retrain"])
MODES = ("K8sJobMode", "HTTPMode", "SidecarMode")
_CRON = re.compile(r"^(\S+ ){4}\S+$")
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def jobs(manifests: Manifests) -> Iterator[str]:
    """Every RayJob, RayCronJob and CronJob."""
    path = manifests.deployment / "generated" / "jobs.yaml"
    said = {f"foretaste-{one['metadata']['name']}": one["spec"] for one in parse(path.read_text())}
    for one in manifests.of("RayJob"):
        yield from (f"{called(one)}: {text}" for text in _job(manifests, one, one["spec"], said))
    for one in manifests.of("RayCronJob"):
        inner = one["spec"].get("jobTemplate") or {}
        yield from (f"{called(one)}: {text}" for text in _job(manifests, one, inner, said))
        yield from (f"{called(one)}: {text}" for text in _schedule(one["spec"]))
        if inner.get("suspend"):
            yield f"{called(one)}: jobTemplate.suspend: what is scheduled would never start"
    for one in manifests.of("CronJob"):
        yield from (f"{called(one)}: {text}" for text in _cron(one, said))
        yield from (f"{called(one)}: {text}" for text in _alone(manifests, one))


def _job(manifests: Manifests, one: dict[str, Any], spec: dict[str, Any], said: dict[str, Any]) -> Iterator[str]:
    wanted = said.get(one["metadata"]["name"])
    if wanted is None:
        yield f"jobs.yaml of {manifests.environment} knows none of this name"
        return
    for key in wanted.keys() - {"workers", "schedule"}:
        if spec.get(key) != wanted[key]:
            yield f"{key} is {spec.get(key)!r}, jobs.yaml says {wanted[key]!r}"
    yield from _entrypoint(manifests, one, str(spec.get("entrypoint", "")))
    if parse_one(spec.get("runtimeEnvYAML") or "{}").keys() - {"env_vars"}:
        yield "runtimeEnvYAML: code travels in the image; only env_vars may stand there"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if not spec.get(key):
            yield f"wanted {key}"
    active, before = spec.get("activeDeadlineSeconds") or 0, spec.get("preRunningDeadlineSeconds") or 0
    if before >= active > 0:
        yield f"preRunningDeadlineSeconds {before} is not below activeDeadlineSeconds {active}"
    if "backoffLimit" not in spec:
        yield "wanted backoffLimit"
    if not spec.get("shutdownAfterJobFinishes"):
        yield "wanted shutdownAfterJobFinishes: ttlSecondsAfterFinished and suspend need it, and the cluster would stay"
    if "ttlSecondsAfterFinished" not in spec:
        yield "wanted ttlSecondsAfterFinished"
    mode = spec.get("submissionMode")
    if mode not in MODES:
        yield f"submissionMode is {mode!r}, wanted one of {', '.join(MODES)}"
    if mode == "SidecarMode" and ("submitterPodTemplate" in spec or "submitterConfig" in spec):
        yield "SidecarMode forbids submitterPodTemplate and submitterConfig"
    if mode == "K8sJobMode" and "submitterPodTemplate" not in spec:
        yield "K8sJobMode: the operator's own submitter is not restricted; wanted submitterPodTemplate"
    if mode == "K8sJobMode" and (spec.get("submitterConfig") or {}).get("backoffLimit", 0) < 1:
        yield "wanted submitterConfig.backoffLimit, for a cluster that is not ready to be told"
    if "clusterSelector" in spec:
        yield "clusterSelector forbids suspend, backoffLimit and a cluster of its own"
    yield from _place(manifests, one, spec)


def _entrypoint(manifests: Manifests, one: dict[str, Any], text: str) -> Iterator[str]:
    if any(sign in text for sign in SHELL):
        yield "entrypoint: the operator cuts it at blanks: no shell, please"
    words = text.split()
    if words[:3] != ["python", "-m", "foretaste"]:
        yield f"entrypoint: wanted python -m foretaste VERB, got {' '.join(words[:3])!r}"
        return
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options = manifests.command_line().parse_args(words[3:])
    except SystemExit:
        yield f"entrypoint: the command line does not know it: {errors.getvalue().strip().splitlines()[-1]}"
        return
    nodes = [pod for pod in pods(manifests) if pod.ray and pod.where.startswith(called(one) + " ")]
    for pod in nodes:
        if not mounted(pod, str(options.config)):
            yield f"{pod.where}: {options.config} is not mounted"


def _place(manifests: Manifests, one: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    booked = spec.get("entrypointNumCpus") or 0
    if not booked > 0:
        yield "wanted entrypointNumCpus above 0: the head has no processors, and the verb would run there all the same"
    workers = [pod for pod in pods(manifests) if pod.role == "worker" and pod.where.startswith(called(one) + " ")]
    if booked > max((_cpus(pod) for pod in workers), default=0):
        yield f"entrypointNumCpus {booked} fits on no worker"
    settings = parse_one((manifests.deployment / "generated" / "foretaste.yaml").read_text())
    training = settings.get("training") or {}
    gpus = sum("nvidia.com/gpu" in pod.spec["containers"][0]["resources"].get("limits", {}) for pod in workers)
    if str(spec.get("entrypoint", "")).split()[3:4] in TRAINERS:
        if bool(training.get("use_gpu")) != bool(gpus):
            yield f"training.use_gpu is {bool(training.get('use_gpu'))}, {gpus} of its groups of workers have GPUs"
        cluster = spec.get("rayClusterSpec") or {}
        room = sum(
            _cpus(pod) * group.get("maxReplicas", 1)
            for pod, group in zip(workers, cluster.get("workerGroupSpecs") or (), strict=True)
        )
        wanted = training.get("num_workers", 2) * training.get("cpus_per_worker", 1.0) + booked
        if wanted > room:
            yield f"training wants {wanted} processors, its workers have {room}"


def _cpus(pod: Expanded) -> float:
    return quantity(pod.spec["containers"][0]["resources"].get("limits", {}).get("cpu", "0"))


def _cron(one: dict[str, Any], said: dict[str, Any]) -> Iterator[str]:
    wanted = said.get(one["metadata"]["name"])
    if wanted is None:
        yield "jobs.yaml knows none of this name"
        return
    spec = one["spec"]
    command = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0].get("command")
    if command != ["/bin/sh", "-c", wanted["entrypoint"]]:
        yield f"runs {command!r}, jobs.yaml says {wanted['entrypoint']!r}"
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "wanted concurrencyPolicy: Forbid: two rounds at a time would wait for one another"
    if "activeDeadlineSeconds" not in spec["jobTemplate"]["spec"]:
        yield "wanted activeDeadlineSeconds"
    if spec.get("schedule") != wanted.get("schedule"):
        yield f"schedule is {spec.get('schedule')!r}, jobs.yaml says {wanted.get('schedule')!r}"
    yield from _schedule(spec)


def _alone(manifests: Manifests, one: dict[str, Any]) -> Iterator[str]:
    """A scheduled job has a Ray of its own in its pod: it has to fit there, and so have the trainers."""
    settings = parse_one((manifests.deployment / "generated" / "foretaste.yaml").read_text())
    container = one["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    limits = (container.get("resources") or {}).get("limits") or {}
    booked = (settings.get("cluster") or {}).get("num_cpus", 2)
    if booked > quantity(limits.get("cpu", "0")):
        yield f"settings give its Ray {booked} processors (cluster.num_cpus), its pod has {limits.get('cpu')}"
    training = settings.get("training") or {}
    if str((container.get("command") or [""])[-1]).split()[3:4] in TRAINERS:
        wanted = training.get("num_workers", 2)
        if training.get("use_gpu") and quantity(limits.get("nvidia.com/gpu", "0")) < wanted:
            yield f"training wants {wanted} GPUs, its pod has {limits.get('nvidia.com/gpu', 'none')}"
        if wanted * training.get("cpus_per_worker", 1.0) > booked:
            yield f"training wants {wanted} workers, its Ray has {booked} processors"


def _schedule(spec: dict[str, Any]) -> Iterator[str]:
    text = str(spec.get("schedule", ""))
    if not _CRON.match(text):
        yield f"schedule {text!r}: wanted five fields"
        return
    for field, (low, high) in zip(text.split(), _FIELDS, strict=True):
        numbers = [int(one) for one in re.findall(r"\d+", field.split("/")[0])]
        if any(not low <= number <= high for number in numbers):
            yield f"schedule {text!r}: {field} is not within {low} and {high}"
    if "timeZone" not in spec:
        yield "wanted timeZone: without it the controller's own counts"
