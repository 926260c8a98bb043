"""Each planted fault is caught, by the check that has to catch it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from foretaste.testing.manifests.checks import CHECKS, KUBERAY, findings
from foretaste.testing.manifests.mutations import Mutation, mutated
from foretaste.testing.manifests.objects import Manifests, parse_one

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20", "ignore::DeprecationWarning")

MUTATIONS = [Mutation.model_validate(one) for one in parse_one((Path(__file__).parent / "mutations.yaml").read_text())]


def test_faults_are_many_and_spread_over_all_checks() -> None:
    counts = Counter(one.caught_by for one in MUTATIONS)
    assert len(MUTATIONS) >= 40
    assert counts.keys() == {*CHECKS, KUBERAY}
    assert min(counts.values()) >= 3
    assert max(Counter(one.name for one in MUTATIONS).values()) == 1


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: f"{one.caught_by}: {one.name}")
def test_a_planted_fault_is_caught_by_its_check(
    mutation: Mutation, overlay: Callable[[str], Manifests], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("kuberay") if mutation.caught_by == KUBERAY else None
    faulty = mutated(overlay("prod"), mutation)
    if mutation.caught_by.endswith("schema"):  # these look at each object alone
        kind, _, name = mutation.object.partition("/")
        faulty.objects[:] = [one for one in faulty.objects if one["metadata"]["name"] == name and one["kind"] == kind]
    said = findings(faulty, mutation.caught_by, schemas_folder=folder)
    assert [one for one in said if mutation.says in one], said
