"""The intent model: causality, hierarchy, heads, and what serving relies on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.histories import Histories, concatenate
from foretaste.contracts.intents import Intent, LabelConfig
from foretaste.models.bodies import ForetasteConfig
from foretaste.models.bodies.foretaste import Foretaste
from foretaste.models.intent import (
    IntentModel,
    IntentModelConfig,
    IntentRecommender,
    build_intent,
    bundle_config,
    possible_classes,
)
from foretaste.models.sequences import NUM_GAPS, gap_classes, sequences
from foretaste.testing.builders import titles_table
from foretaste.testing.contract_recommender import MINUTE_US, START_US, assert_recommender_contract, one_history

KNOWN = catalogue(titles_table(12))
SMALL = IntentModelConfig(width=16, feedforward=32, max_length=8, dropout=0.3, body=ForetasteConfig())


def model(
    known: Catalogue = KNOWN,
    config: IntentModelConfig = SMALL,
    *,
    seed: int = 0,
    heads: Sequence[Intent] = tuple(Intent),
) -> IntentModel:
    torch.manual_seed(seed)
    possible = possible_classes(known)
    made = IntentModel(config, known, {head: possible[head] for head in heads})
    with torch.no_grad():  # weights as if trained: large enough that what is wired shows
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def recommender(
    known: Catalogue = KNOWN, config: IntentModelConfig = SMALL, *, heads: Sequence[Intent] = tuple(Intent)
) -> IntentRecommender:
    return IntentRecommender(model(known, config, heads=heads), known)


def hierarchy(made: IntentModel) -> Foretaste:
    assert isinstance(made.body, Foretaste)
    return made.body


def late(histories: Histories) -> NDArray[np.int64]:
    """An hour after the newest interaction of each history."""
    stops = histories.offsets_B1[1:]
    newest = [int(histories.at_T[stop - 1]) if stop > start else START_US
              for start, stop in zip(histories.offsets_B1, stops, strict=False)]  # fmt: skip
    return np.array(newest, dtype=np.int64) + 60 * MINUTE_US


def test_the_intent_model_keeps_the_contract_of_recommenders() -> None:
    assert_recommender_contract(lambda log, known: recommender(known))


def test_what_comes_later_does_not_change_what_was_encoded_before() -> None:
    made = model().eval()
    one, other = one_history([1, 2, 3, 4, 5]), one_history([1, 2, 3, 9, 11])
    asof = late(one)
    with torch.inference_mode():
        title_N1D, _ = made.titles()
        a = made(sequences(one, asof, max_length=8, time_aware=True), title_N1D)
        b = made(sequences(other, asof, max_length=8, time_aware=True), title_N1D)
    torch.testing.assert_close(a.item_TD[:4], b.item_TD[:4])
    assert not torch.allclose(a.item_TD[4:], b.item_TD[4:])
    for head in a.intents:
        torch.testing.assert_close(a.intents[head][:4], b.intents[head][:4])
        assert not torch.allclose(a.intents[head][4:], b.intents[head][4:])


def test_the_time_of_the_request_is_read_only_when_time_aware() -> None:
    history = one_history([1, 2, 3])
    soon, much_later = late(history), late(history) + 90 * 1440 * MINUTE_US
    aware = recommender()
    blind = recommender(config=SMALL.model_copy(update={"time_aware": False}))
    assert not np.allclose(aware.scores(history, soon), aware.scores(history, much_later))
    assert np.array_equal(blind.scores(history, soon), blind.scores(history, much_later))


def test_the_predicted_intent_changes_the_scores_of_titles() -> None:
    made = model()
    history = one_history([1, 2, 3])
    before = IntentRecommender(made, KNOWN).scores(history, late(history))
    with torch.no_grad():
        dict(hierarchy(made).fusion.heads.named_parameters())["genre.bias"][0] += 5.0
    after = IntentRecommender(made, KNOWN).scores(history, late(history))
    assert np.abs(after - before).max() > 1e-3


def test_the_item_loss_reaches_the_intent_encoder() -> None:
    made = model()
    history = one_history([1, 2, 3])
    encoded = made(sequences(history, late(history), max_length=8, time_aware=True), made.titles()[0])
    encoded.item_TD.pow(2).sum().backward()
    grads = [p.grad for p in hierarchy(made).intent_encoder.parameters()]
    assert all(g is not None and g.abs().sum() > 0 for g in grads)


def test_a_head_that_is_off_is_absent_from_the_answer() -> None:
    made = recommender(heads=[Intent.GENRE, Intent.RECENCY])
    history = concatenate([one_history([1, 2]), one_history([])])
    answer = made.predict(history, late(history))
    assert answer.heads == ("genre", "recency")
    assert set(answer.intents) == set(answer.classes) == {"genre", "recency"}
    assert answer.attention_BI.shape == (2, 2)


def test_without_any_head_titles_are_still_predicted() -> None:
    history = one_history([1, 2])
    answer = recommender(heads=[]).predict(history, late(history))
    assert answer.attention_BI.shape == (1, 0)
    assert np.exp(answer.scores_BN).sum() == pytest.approx(1.0, abs=1e-5)


def test_intents_attention_and_titles_are_distributions() -> None:
    history = concatenate([one_history([]), one_history([0, 0]), one_history([3, 1, 2] * 6)])
    answer = recommender().predict(history, late(history))
    assert np.exp(answer.scores_BN).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-4)
    assert answer.attention_BI.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for name, classes in answer.classes.items():
        assert answer.intents[name].shape == (3, len(classes))
        assert answer.intents[name].sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_only_the_newest_interactions_up_to_the_limit_are_read() -> None:
    made = recommender()
    long = one_history(list(range(1, 12)), per_session=99)
    asof = late(long)
    assert np.allclose(made.scores(long, asof), made.scores(long.last(8), asof), atol=1e-6)
    assert not np.allclose(made.scores(long, asof), made.scores(long.last(7), asof), atol=1e-4)


def test_a_bundle_answers_as_the_model_it_was_made_of() -> None:
    made = model()
    history = concatenate([one_history([1, 2, 5]), one_history([])])
    weights = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    again = build_intent(bundle_config(made, KNOWN), KNOWN, weights)
    assert np.array_equal(
        IntentRecommender(made, KNOWN).scores(history, late(history)), again.scores(history, late(history))
    )


def test_a_bundle_refuses_another_catalogue() -> None:
    made = model()
    with pytest.raises(ValueError, match="trained with catalogue"):
        build_intent(bundle_config(made, KNOWN), catalogue(titles_table(11)), made.state_dict())


def test_a_bundle_that_was_trained_with_other_intents_is_refused_by_name() -> None:
    made = model()
    config = bundle_config(made, KNOWN, LabelConfig(sample_below=0.2))
    assert build_intent(config, KNOWN, made.state_dict()).labels.sample_below == 0.2
    without = {name: value for name, value in config.items() if name != "labels"}
    with pytest.raises(ValueError, match="before its intents were declared"):
        build_intent(without, KNOWN, made.state_dict())
    with pytest.raises(ValueError, match=r"(?s)trained with other intents.*best_before"):
        build_intent(config | {"labels": config["labels"] | {"best_before": 3}}, KNOWN, made.state_dict())
    old = config["specifications"]["action"] | {"classes": ["discover", "continue", "return"]}
    with pytest.raises(ValueError, match=r"(?s)another intent 'action'.*'continue', 'return'"):
        build_intent(config | {"specifications": config["specifications"] | {"action": old}}, KNOWN, made.state_dict())
    with pytest.raises(ValueError, match=r"(?s)heads with classes that its intents do not have.*'binge'"):
        build_intent(config | {"heads": config["heads"] | {"action": ["binge"]}}, KNOWN, made.state_dict())


def test_gap_classes_double_and_never_leave_their_range() -> None:
    seconds = np.array([-5, 0, 0.5, 1, 1.9, 2, 3.9, 4, 1e30])
    assert gap_classes((seconds.clip(max=1e12) * 1e6).astype(np.int64)).tolist() == [
        1,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        NUM_GAPS - 1,
    ]


def test_a_catalogue_without_genres_has_no_trouble() -> None:
    bare = catalogue(titles_table([{"title_id": "a"}, {"title_id": "b"}]))
    made = recommender(bare, heads=[Intent.ACTION])
    assert made.scores(one_history([1, 2]), np.array([START_US + MINUTE_US * 9])).shape == (1, 2)


def test_ids_alone_are_enough_for_our_body() -> None:
    made = recommender(config=SMALL.model_copy(update={"inputs": "ids"}))
    history = concatenate([one_history([1, 2, 5]), one_history([])])
    assert np.isfinite(made.scores(history, late(history))).all()


def test_untrained_heads_say_the_shares_that_they_start_from() -> None:
    made = model()
    shares = {head: np.linspace(1.0, 2.0, len(of)) / np.linspace(1.0, 2.0, len(of)).sum()
              for head, of in made.classes.items()}  # fmt: skip
    made.start_from(shares)
    for head, module in hierarchy(made).fusion.heads.items():
        assert isinstance(module, torch.nn.Linear)
        with torch.no_grad():
            module.weight.zero_()
        history = one_history([1, 2])
        said = IntentRecommender(made, KNOWN).predict(history, late(history)).intents[head]
        assert said[0] == pytest.approx(shares[Intent(head)], abs=1e-5)


def test_the_recency_of_a_title_does_not_depend_on_who_else_is_asked_for() -> None:
    decoder = model().decoder
    assert decoder is not None
    now_P = torch.tensor([2.9e7, 1.1e7, 2.9e7 + 7 * 1440.0], dtype=torch.float64)
    said = torch.randn(3, len(decoder.bound_minutes) + 2, generator=torch.Generator().manual_seed(1))
    together = decoder.released(now_P).spread(said)
    for row in range(3):
        alone = decoder.released(now_P[row : row + 1]).spread(said[row : row + 1])
        assert torch.equal(together[row : row + 1], alone)
