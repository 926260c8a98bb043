"""RecTools itself as an oracle: its recommendations are what we rank, and its metrics are ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import PLAY_LIKE
from foretaste.evaluation.cases import cases
from foretaste.evaluation.metrics import best_titles, exclude_seen, per_case, target_ranks
from foretaste.jobs.reference import train_reference, training_rows
from foretaste.jobs.reference_models import RECIPES, ReferenceConfig, ReferenceModel
from foretaste.testing.builders import interactions_table, titles_table

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-references" / "bin" / "python"
PROGRAM = ROOT / "deployments" / "references" / "rectools_program.py"
CATALOGUE = catalogue(titles_table(30))
DICE = np.random.default_rng(0)
TABLE = interactions_table(
    [
        (f"m{actor:02d}", float(day), str(title))
        for actor in range(60)
        for day, title in enumerate(DICE.permutation(CATALOGUE.ids)[: DICE.integers(4, 14)])
    ]
)
K = 10

ORACLE = f"""
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
sys.path.insert(0, {str(PROGRAM.parent)!r})
import rectools_program as program
from rectools.metrics import HitRate, NDCG, calc_metrics

folder = Path(sys.argv[1])
model = program.main(folder)
with np.load(folder / "input.npz") as given:
    trained = program.dataset(given)
    asked = pd.DataFrame(np.load(TRUTH), columns=["user_id", "item_id", "at"])
    context = pd.DataFrame(dict(user_id=asked.user_id, datetime=pd.to_datetime(asked["at"], unit="us"), weight=1.0))
recommended = model.recommend(
    users=asked.user_id.to_numpy(), dataset=trained, k={K}, filter_viewed=True,
    context=context if model.require_recommend_context else None,
)
metrics = dict(ndcg=NDCG(k={K}, divide_by_achievable=True), hr=HitRate(k={K}))
found = calc_metrics(metrics, recommended, asked[["user_id", "item_id"]])
lists = recommended.sort_values(["user_id", "rank"]).groupby("user_id").item_id.agg(list)
Path(FOUND).write_text(json.dumps(dict(found=found, lists={{str(u): one for u, one in lists.items()}})))
"""


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.is_file(), reason="the reference libraries are not installed: `make references`")
@pytest.mark.parametrize(
    ("name", "time_aware"), [("rectools-sasrec", False), ("rectools-bert4rec", False), ("rectools-hstu", True)]
)
def test_what_we_rank_is_what_rectools_recommends_and_both_count_it_alike(
    name: str, time_aware: bool, tmp_path: Path
) -> None:
    asked = cases(TABLE, CATALOGUE, split="last", target_actions=PLAY_LIKE)
    validation = cases(TABLE, CATALOGUE, split="last", target_actions=PLAY_LIKE, which="validation")
    rows = training_rows(TABLE, asked, target_actions=PLAY_LIKE, fit_on=("train", "validation"))
    np.save(tmp_path / "truth.npy", np.column_stack([asked.actor_B, asked.target_B, asked.asof_B]))
    program = tmp_path / "oracle.py"
    paths = f"TRUTH, FOUND = {str(tmp_path / 'truth.npy')!r}, {str(tmp_path / 'found.json')!r}\n"
    program.write_text(paths + ORACLE)
    model = ReferenceModel(
        name=name, width=16, depth=1, heads=2, length=8, epochs=2, time_aware=time_aware, **RECIPES[name]
    )
    result = train_reference(
        model, rows, asked, validation, validation_rows_V=np.arange(len(validation)), exclude_seen=True,
        config=ReferenceConfig(python=PYTHON, program=program, timeout_seconds=300), on_epoch=lambda epoch: None,
    )  # fmt: skip
    theirs = json.loads((tmp_path / "found.json").read_text())
    histories = asked.histories
    open_BN = exclude_seen(result.recommender.scores(histories, asked.asof_B), histories, asked.target_B)
    ours_BK = best_titles(open_BN, K)
    same = [ours_BK[row].tolist() == theirs["lists"][str(actor)] for row, actor in enumerate(asked.actor_B)]
    assert np.mean(same) > 0.95  # products of other blocks may differ in the last bit
    values = per_case(target_ranks(open_BN, asked.target_B), (K,))
    assert 0 < values["hr@10"].mean() < 1
    assert values["ndcg@10"].mean() == pytest.approx(theirs["found"]["ndcg"], abs=1e-4)
    assert values["hr@10"].mean() == pytest.approx(theirs["found"]["hr"], abs=1e-9)
