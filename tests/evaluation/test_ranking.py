"""The whole evaluation, from cases to the page."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray
from rich.console import Console

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import PLAY_LIKE
from foretaste.contracts.histories import Histories
from foretaste.evaluation.baselines import fit_baselines
from foretaste.evaluation.cases import Cases, cases
from foretaste.evaluation.page import headline
from foretaste.evaluation.protocols import Protocol
from foretaste.evaluation.ranking import check_blind, evaluate
from foretaste.evaluation.report import Report, read_report, write_report
from foretaste.models.baselines import BASELINES, RecentPopularity, RecentPopularityConfig, baseline
from foretaste.models.contract import Recommender
from foretaste.testing.builders import random_interactions, titles_table

TITLES = titles_table(15)
CATALOGUE = catalogue(TITLES)
STAYS = Protocol(exclude_seen=False)
LEAVES = Protocol(exclude_seen=True)
LOG = random_interactions(TITLES, actors=40, seed=3)


def questions(limit: int | None = None) -> Cases:
    """Cases of the time split."""
    return cases(LOG, CATALOGUE, split="time", target_actions=PLAY_LIKE, limit=limit)


class Told:
    """Scores what it is told to: one row a case, found by its as-of time and length."""

    def __init__(self, name: str, asked: Cases, rows_BN: NDArray[np.float32]) -> None:
        self.name = name
        keys = zip(asked.asof_B.tolist(), asked.lengths_B.tolist(), asked.actor_B.tolist(), strict=True)
        self.rows = {(at, length): rows_BN[b] for b, (at, length, _) in enumerate(keys)}

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Look the rows up."""
        keys = zip(asof_B.tolist(), histories.lengths_B.tolist(), strict=True)
        return np.stack([self.rows[key] for key in keys])


def oracle(asked: Cases, name: str = "oracle") -> Told:
    """Knows the target."""
    rows_BN = np.zeros((len(asked), asked.num_titles), dtype=np.float32)
    rows_BN[np.arange(len(asked)), asked.target_B - 1] = 1.0
    return Told(name, asked, rows_BN)


def baselines() -> list[Recommender]:
    """All baselines, fitted on the training part."""
    return fit_baselines(LOG, CATALOGUE, protocol=STAYS, target_actions=PLAY_LIKE)


def report(*more: Recommender, asked: Cases | None = None, protocol: Protocol = STAYS) -> Report:
    """Evaluate the baselines and more."""
    return evaluate(
        [*baselines(), *more],
        asked or questions(),
        protocol=protocol,
        seed=0,
        advance=lambda amount: None,
        resamples=100,
        facts={"cut_test": "2026-01-28T00:00:00Z"},
    )


def test_a_model_that_knows_the_answer_is_first_with_one_everywhere() -> None:
    asked = questions()
    found = report(oracle(asked))
    assert found.models[0] == "oracle"
    assert all(found.figures["oracle"][m].value == 1.0 for m in ("hr@5", "ndcg@10", "mrr@20"))
    assert found.best_baseline in BASELINES
    gap = found.differences["oracle"]["ndcg@10"]
    assert gap.against == found.best_baseline
    assert gap.low is not None
    assert gap.low > 0
    assert gap.p_not_better == 0.0
    assert found.best_baseline not in found.differences


def test_figures_agree_with_sorting_every_case_by_hand() -> None:
    asked = questions()
    found = report(asked=asked)
    for model in baselines():
        scores_BN = model.scores(asked.histories, asked.asof_B)
        ranks = [
            sorted(range(15), key=lambda j, b=b: (-scores_BN[b, j], j)).index(asked.target_B[b] - 1)  # type: ignore[misc]
            for b in range(len(asked))
        ]
        figures = found.figures[model.name]
        assert figures["hr@5"].value == pytest.approx(np.mean([rank < 5 for rank in ranks]))
        assert figures["ndcg@10"].value == pytest.approx(np.mean([(r < 10) / np.log2(r + 2) for r in ranks]))
        assert figures["mrr@20"].value == pytest.approx(np.mean([1 / (rank + 1) for rank in ranks]))
        shown = {int(j) for b in range(len(asked)) for j in np.argsort(-scores_BN[b], kind="stable")[:5]}
        assert figures["coverage@5"].value == pytest.approx(len(shown) / 15)
        for m in ("hr@5", "ndcg@10"):
            low, high = figures[m].low, figures[m].high
            assert low is not None
            assert high is not None
            assert low <= figures[m].value <= high


def test_the_size_of_a_batch_does_not_change_the_report() -> None:
    asked = questions()
    done: list[float] = []
    two = [
        evaluate(baselines(), asked, protocol=LEAVES, seed=1, advance=done.append, resamples=20, batch_size=size)
        for size in (7, 1000)
    ]
    assert two[0] == two[1]
    assert sum(done) == 2 * len(BASELINES) * len(asked)


def test_excluding_seen_titles_lifts_a_model_that_repeats_what_was_seen() -> None:
    asked = questions()
    rows_BN = np.zeros((len(asked), asked.num_titles), dtype=np.float32)
    for b in range(len(asked)):
        rows_BN[b, asked.batch(b, b + 1).title_T - 1] = 2.0
        rows_BN[b, asked.target_B[b] - 1] = 1.0
    model = Told("repeats", asked, rows_BN)
    kept, without = (
        evaluate([model], asked, k=(1,), protocol=rules, seed=0, advance=lambda amount: None, resamples=10)
        for rules in (STAYS, LEAVES)
    )
    assert kept.figures["repeats"]["hr@1"].value < 0.9
    assert without.figures["repeats"]["hr@1"].value == 1.0
    assert without.best_baseline is None
    assert not without.differences


def test_ties_decide_nothing_for_models_without_them_and_much_for_a_constant() -> None:
    asked = questions()
    flat = Told("flat", asked, np.zeros((len(asked), asked.num_titles), dtype=np.float32))
    coded, drawn, last = (
        report(flat, asked=asked, protocol=STAYS.model_copy(update={"score_ties": order}))
        for order in ("code", "drawn", "last")
    )
    assert last.figures["flat"]["hr@10"].value == 0.0, (
        "a model that knows nothing gets nothing where ties count against it"
    )
    assert drawn.figures["flat"]["hr@5"].value == pytest.approx(5 / 15, abs=0.12)
    assert coded.figures["flat"]["hr@5"].value == pytest.approx((asked.target_B <= 5).mean())
    assert coded.figures["recent_popularity"]["hr@5"].value == pytest.approx(
        drawn.figures["recent_popularity"]["hr@5"].value, abs=0.05
    )


def test_scores_of_the_wrong_shape_or_not_finite_are_refused_by_name() -> None:
    asked = questions()
    bad = np.full((len(asked), asked.num_titles), np.nan, dtype=np.float32)
    with pytest.raises(ValueError, match=r"broken: .* not finite"):
        report(Told("broken", asked, bad))
    with pytest.raises(ValueError, match="narrow: scores have shape"):
        report(Told("narrow", asked, bad[:, 1:]))
    with pytest.raises(ValueError, match="different names"):
        report(oracle(asked, "markov"))


def test_slices_hold_every_case_once() -> None:
    found = report()
    for slices in found.slices.values():
        assert sum(part.cases for part in slices) == found.protocol["cases"]


def test_exposure_rises_from_nothing_to_everything() -> None:
    found = report()
    assert set(found.exposure) == {*BASELINES, "what was chosen"}
    for line in found.exposure.values():
        assert (line[0], line[-1]) == (0.0, 1.0)
        assert line == sorted(line)
    assert found.exposure["popularity"][20] > found.exposure["what was chosen"][20]


def test_the_protocol_says_how_it_was_measured() -> None:
    asked = questions(limit=4)
    protocol = report(asked=asked).protocol
    assert protocol["actors"] == 4
    assert protocol["cases"] == len(asked)
    assert protocol["titles"] == 15
    assert protocol["catalogue"] == CATALOGUE.fingerprint
    assert protocol["exclude_seen"] is False
    assert protocol["score_ties"] == "equal scores by catalogue code"
    assert {name: protocol[name] for name in ("split", "targets", "ties", "track", "fit")} == {
        "split": "time", "targets": "all", "ties": "stable", "track": "aware", "fit": "strict",
    }  # fmt: skip
    assert protocol["cut_test"] == "2026-01-28T00:00:00Z"


def test_the_report_comes_back_from_its_file(tmp_path: Path) -> None:
    found = report()
    write_report(found, tmp_path)
    assert read_report(tmp_path / "report.json") == found
    plain = json.loads((tmp_path / "report.json").read_text())
    assert set(plain["figures"]["markov"]["ndcg@10"]) == {"value", "low", "high"}
    assert plain["figures"]["markov"]["coverage@10"]["low"] is None
    with pytest.raises(ValueError, match="format is 7"):
        Report.from_json(plain | {"format": 7})


def test_the_page_has_every_model_and_drawing_and_loads_nothing(tmp_path: Path) -> None:
    asked = questions()
    found = report(oracle(asked, "mind <reader>"))
    write_report(found, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert html.count("<img ") == 5
    assert "mind &lt;reader&gt;" in html
    assert "mind <reader>" not in html
    for name in BASELINES:
        assert f"<td>{name}</td>" in html
    assert "2026-01-28T00:00:00Z" in html
    assert "<script" not in html
    assert "http" not in html
    assert html == found.to_html(), "the same report gives the same page"


def test_the_headline_says_when_a_lead_may_be_chance_and_when_a_baseline_leads() -> None:
    asked = questions()
    assert "this may be chance" not in headline(report(oracle(asked)))
    assert "no model is above it" in headline(report())
    model = baselines()[0]
    same = Told("twin", asked, model.scores(asked.histories, asked.asof_B))
    found = evaluate([same, model], asked, protocol=STAYS, seed=0, advance=lambda amount: None, resamples=50)
    assert "this may be chance" in headline(found)


def test_a_single_actor_gives_a_report_without_intervals() -> None:
    found = report(asked=questions(limit=1))
    assert found.figures["markov"]["hr@5"].low is None
    assert "<img " in found.to_html()
    assert "nothing can be said" in headline(found) or "no model is above" in headline(found)


def test_the_terminal_shows_every_model_best_first() -> None:
    found = report()
    out = io.StringIO()
    found.to_terminal(Console(file=out, width=200))
    firsts = [line.split()[0] for line in out.getvalue().splitlines() if line.strip()]
    assert [word for word in firsts if word in found.models] == found.models
    assert "global time split, all targets of a member, whole catalogue ranked" in out.getvalue()


def test_only_drawing_loads_matplotlib() -> None:
    code = (
        "import sys, foretaste.evaluation.ranking, foretaste.evaluation.baselines; print('matplotlib' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_recent_popularity_is_fitted_on_all_rows_and_the_rest_on_the_training_part() -> None:
    fitted = {model.name: model for model in baselines()}
    assert tuple(fitted) == BASELINES
    recent = fitted["recent_popularity"]
    assert isinstance(recent, RecentPopularity)
    choices = [row for row in LOG.to_pylist() if row["action"] in PLAY_LIKE]
    assert len(recent.at_T) == len(choices)
    late = LOG.filter(pc.equal(LOG["split_time"], "test"))
    with pytest.raises(ValueError, match="marks no row"):
        fit_baselines(late, CATALOGUE, protocol=STAYS, target_actions=PLAY_LIKE)


def test_a_caution_of_the_data_stands_in_the_terminal_and_on_the_page() -> None:
    asked = questions()
    found = evaluate(
        baselines(), asked, protocol=STAYS, seed=0, advance=lambda amount: None, resamples=10,
        facts={"caution": "sign-up forms"},
    )  # fmt: skip
    out = io.StringIO()
    found.to_terminal(Console(file=out, width=200))
    assert "caution: sign-up forms" in out.getvalue()
    assert "Caution: sign-up forms" in found.to_html()


def test_a_model_that_reads_the_time_is_refused_in_the_time_blind_track() -> None:
    asked = questions()
    blind = Protocol(exclude_seen=False, track="blind")
    with pytest.raises(ValueError, match="vstan reads the time of the question"):
        evaluate(baselines(), asked, protocol=blind, seed=0, advance=lambda amount: None)
    admitted = fit_baselines(LOG, CATALOGUE, protocol=blind, target_actions=PLAY_LIKE)
    found = evaluate(admitted, asked, protocol=blind, seed=0, advance=lambda amount: None, resamples=10)
    assert "recent_popularity" in found.figures, "popularity of the last days stands beside every comparison"
    assert found.best_baseline != "recent_popularity", "in the blind track it is a yardstick only"
    with pytest.raises(ValueError, match="or does not say that it does not"):
        evaluate([oracle(asked)], asked, protocol=blind, seed=0, advance=lambda amount: None)


def test_a_model_that_says_it_is_blind_but_is_not_is_found_out() -> None:
    asked = questions()
    sly = fit_baselines(LOG, CATALOGUE, protocol=STAYS, target_actions=PLAY_LIKE, configs=[RecentPopularityConfig()])[0]
    with pytest.raises(ValueError, match="its scores change with it"):
        check_blind(sly, asked)
    for name in ("popularity", "markov", "session_knn", "vstan"):
        config = baseline(name, time_aware=False)
        blind = fit_baselines(LOG, CATALOGUE, protocol=STAYS, target_actions=PLAY_LIKE, configs=[config])[0]
        check_blind(blind, asked)


def test_cases_can_be_asked_without_what_was_done_in_their_session() -> None:
    asked = questions()
    cut = asked.batch(0, len(asked), session=False)
    np.testing.assert_array_equal(cut.lengths_B, asked.lengths_B - asked.depth_B)
    for b in range(len(asked)):
        own = asked.timeline.session_T[asked.stop_B[b]]
        assert own not in cut.session_T[cut.offsets_B1[b] : cut.offsets_B1[b + 1]]
