"""Apply an overlay, once nothing in it stands for something else: `make apply ENVIRONMENT=prod`.

The repository's overlays render with placeholders, so that they can be checked; what is applied must have none: images
by a digest of zeros, hosts of example.org, generated files that are stale, Secrets that are not in the namespace.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from foretaste.jobs.deployments import ENVIRONMENTS, read, stale
from foretaste.ops.telemetry import say

REFUSED = 1
Kubectl = Callable[[Sequence[str]], str]
_IMAGE = re.compile(r"^\s*(?:- )?image: *[\"']?([^\s\"']+)", re.MULTILINE)
_ZEROS = re.compile(r"@sha256:(0+)$")
_EXAMPLE = re.compile(r"\b[\w.-]*example\.(?:org|com|net)\b")
_HOW = {
    "image": "cd k8s/overlays/{name} && kustomize edit set image {image}=REGISTRY/{image}@sha256:...  (`docker buildx "
    "imagetools inspect REGISTRY/{image}:TAG` says it)",
    "host": "places.host of deployments/{name}/deployment.yaml, then `make deployments`",
}


def placeholders(text: str, name: str) -> Iterator[str]:
    """What in the rendered overlay of an environment stands for something that an operator has to say, and how to."""
    for image in sorted(set(_IMAGE.findall(text))):
        bare, _, digest = image.partition("@")
        short = re.split(r":(?!.*/)", bare)[0].split("/")[-1]
        if _ZEROS.search(image):
            yield f"image {image}: the digest is a placeholder; {_HOW['image'].format(name=name, image=short)}"
        elif name == "prod" and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            yield f"image {image}: in production by digest; {_HOW['image'].format(name=name, image=short)}"
    for host in sorted(set(_EXAMPLE.findall(text))):
        yield f"host {host}: nobody's name; {_HOW['host'].format(name=name)}"


def missing(text: str, wanted: Sequence[dict[str, object]], there: Sequence[str]) -> Iterator[str]:
    """Secrets that the rendered text names and the namespace lacks."""
    for one in wanted:
        if str(one["name"]) not in there and re.search(rf"\b{one['name']}\b(?!-)", text):
            yield f"Secret/{one['name']} is not in the namespace: {one['about']} (k8s/secrets.yaml)"


def refusals(root: Path, name: str, kubectl: Kubectl) -> list[str]:
    """Everything that keeps an overlay from being applied."""
    folder = root / "deployments" / name
    found = [f"{folder}/{file} is stale: `make deployments`" for file in stale(folder)]
    text = kubectl(["kustomize", str(root / "k8s/overlays" / name)])
    found += placeholders(text, name)
    namespace = read(folder / "deployment.yaml").namespace
    said = kubectl(["-n", namespace, "get", "secrets", "-o", "name", "--ignore-not-found"])
    there = [line.removeprefix("secret/") for line in said.split()]
    secrets = yaml.safe_load((root / "k8s/secrets.yaml").read_text())["secrets"]
    return [*found, *missing(text, secrets, there)]


def apply(root: Path, name: str, kubectl: Kubectl, *, selector: str | None = None) -> int:
    """Apply an overlay where nothing keeps it; 1, and nothing applied, where something does."""
    found = refusals(root, name, kubectl)
    for one in found:
        say(one)
    if found:
        print(f"apply: {len(found)} things to mend first; nothing was applied", file=sys.stderr)
        return REFUSED
    chosen = [] if selector is None else ["-l", selector]
    say(kubectl(["apply", "-k", str(root / "k8s/overlays" / name), *chosen]).strip())
    return 0


def _kubectl(arguments: Sequence[str]) -> str:
    """The operator's own kubectl, or else the one beside this Python, which may have no cluster to speak to."""
    program = shutil.which("kubectl") or str(Path(sys.executable).parent / "kubectl")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConnectionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Apply an overlay of k8s/overlays; 1 where placeholders, stale files or missing Secrets keep it, 2 no cluster."""
    options = argparse.ArgumentParser(prog="foretaste.jobs.apply", description=main.__doc__)
    options.add_argument("name", choices=ENVIRONMENTS, help="which environment")
    options.add_argument("--selector", help="only objects with these labels, as `kubectl apply -l` takes them")
    asked = options.parse_args(arguments)
    try:
        return apply(Path.cwd(), asked.name, _kubectl, selector=asked.selector)
    except (ConnectionError, ValueError) as error:
        print(f"apply: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
