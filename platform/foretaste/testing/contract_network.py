"""What every sequence model must do, asserted rule by rule: hand `assert_network_contract` its configuration.

Shapes: B histories, T tokens or interactions, D width, C classes of one head, I heads that are on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.histories import Histories, concatenate
from foretaste.contracts.intents import USUAL, Intent
from foretaste.models.bodies import Encoded
from foretaste.models.intent import (
    IntentModel,
    IntentModelConfig,
    IntentRecommender,
    build_intent,
    bundle_config,
    possible_classes,
)
from foretaste.models.sequences import Sequences, masks, sequences
from foretaste.sessions.label import intent_labels
from foretaste.testing.builders import START, titles_table
from foretaste.testing.contract_recommender import MINUTE_US, assert_recommender_contract, one_history
from foretaste.training.config import TrainingConfig
from foretaste.training.examples import Examples, census
from foretaste.training.intent import classes_in
from foretaste.training.intent_task import IntentTask
from foretaste.training.loop import train
from foretaste.training.plain import PlainContext
from foretaste.training.windows import MicroBatch

NUM_TITLES = 12
BEGIN_US = round(START.timestamp() * 1e6)
LEARNED, LEARNED_IN_PLACE = 0.9, 0.5
"""Share of next titles that a model has to put first where the rule is certain; of one that looks both ways."""


def assert_network_contract(config: IntentModelConfig) -> None:
    """Assert all rules. Raises AssertionError naming what is broken."""
    for rule in RULES:
        rule(config)


def it_is_built_from_its_configuration_and_from_its_json(config: IntentModelConfig) -> None:
    """The same seed gives the same weights either way."""
    again = IntentModelConfig.model_validate_json(config.model_dump_json())
    assert again == config, "the configuration is not what its JSON says"
    one, other = (_network(each).state_dict() for each in (config, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one), "two builds of one seed differ"


def it_encodes_every_token(config: IntentModelConfig) -> None:
    """One state a token, one row of logits a token and head; attention, where there is any, sums to 1."""
    network, tokens = _network(config), _tokens(config, several_histories())
    encoded, num = _encode(network, tokens), len(tokens.title_T)
    assert encoded.item_TD.shape == (num, config.width), f"states are {tuple(encoded.item_TD.shape)}"
    assert list(encoded.intents) == list(network.classes), "heads are not those that are on, or in another order"
    for head, logits_TC in encoded.intents.items():
        assert logits_TC.shape == (num, len(network.classes[head])), f"{head}: {tuple(logits_TC.shape)}"
    if encoded.attention_TI is not None and encoded.z_TD is not None:
        assert encoded.attention_TI.shape == (num, len(network.classes))
        torch.testing.assert_close(encoded.attention_TI.sum(dim=1), torch.ones(num))
        assert encoded.z_TD.shape == (num, config.width)
    some, other = (tokens.layout.last_B[b] for b in (1, 2))
    assert not torch.allclose(encoded.item_TD[some], encoded.item_TD[other]), "the history is not read"


def what_is_not_known_yet_is_not_read(config: IntentModelConfig) -> None:
    """What comes later changes nothing before it; of a model that looks both ways, what is hidden changes nothing."""
    network = _network(config)
    history = _history([1, 2, 3, 4, 5, 6])
    other = replace(
        history,
        title_T=np.where(np.arange(6) < 4, history.title_T, 9).astype(np.int32),
        action_T=np.where(np.arange(6) < 4, history.action_T, ACTION_CODES[Action.THUMB_UP]).astype(np.int32),
        dwell_T=np.where(np.arange(6) < 4, history.dwell_T, 999.0).astype(np.float32),
    )
    if config.body.both_ways:
        hidden_T = np.array([False] * 5 + [True] * 2)
        made = (masks(_tokens(config, one), hidden_T, time_aware=config.time_aware) for one in (history, other))
        a, b = (_encode(network, one) for one in made)
        _same(a, b, slice(None), "what is hidden is read")
        a, b = (_encode(network, _tokens(config, one)) for one in (history, other))
        assert not torch.allclose(a.item_TD[:5], b.item_TD[:5]), "what comes later is not read"
        return
    a, b = (_encode(network, _tokens(config, one)) for one in (history, other))
    _same(a, b, slice(5), "what comes later is read")
    assert not torch.allclose(a.item_TD[5:], b.item_TD[5:]), "interactions are not read"
    blind = config.model_copy(update={"time_aware": False})
    late = replace(other, at_T=history.at_T + np.array([0, 0, 0, 0, 7, 9]) * 1440 * MINUTE_US)
    a, b = (_encode(_network(blind), _tokens(blind, one)) for one in (history, late))
    _same(a, b, slice(5), "when the next comes is read")


def what_it_is_packed_with_changes_nothing(config: IntentModelConfig) -> None:
    """A sequence among others of other lengths gives what it gives alone."""
    network, questions = _network(config), several_histories()
    together = _encode(network, _tokens(config, questions))
    stop_B1 = _tokens(config, questions).layout.offsets_B1
    for b in range(len(questions)):
        alone = _encode(network, _tokens(config, questions.rows(np.array([b]))))
        _same(alone, together.at(torch.arange(stop_B1[b], stop_B1[b + 1])), slice(None), f"history {b} is not alone")


def it_recommends(config: IntentModelConfig) -> None:
    """As `contract_recommender` asserts: finite, also of empty histories and unknown titles, and pure."""

    def make(_: Histories, known: Catalogue) -> IntentRecommender:
        return IntentRecommender(_network(config, known), known)

    assert_recommender_contract(make)


def its_loss_reaches_every_parameter(config: IntentModelConfig) -> None:
    """Nothing is built that is not trained."""
    task = _task(config)
    task.network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task.loss(_first(task))[0].backward()  # type: ignore[no-untyped-call]
    idle = [
        name
        for name, parameter in task.network.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.to_dense().abs().sum() > 0)
    ]
    assert not idle, f"the loss does not reach {idle}"


def it_learns_a_rule(config: IntentModelConfig) -> None:
    """Everybody goes from one title to the next: after a few steps it knows.

    What looks both ways learns from what is hidden alone: it gets more steps, and less is asked of it.
    """
    task = _task(config)
    epochs = 30 if config.body.both_ways else 10
    training = TrainingConfig(executor="plain", epochs=epochs, batch_size=64, learning_rate=0.02, refit=True)
    train(task, training, PlainContext(lambda epoch: None))
    asked = concatenate([_history([n + 1, (n + 1) % NUM_TITLES + 1]) for n in range(NUM_TITLES)])
    scores_BN = IntentRecommender(task.network, task.catalogue).scores(asked, _soon(asked))
    share = float(np.mean(scores_BN.argmax(axis=1) == (np.arange(NUM_TITLES) + 2) % NUM_TITLES))
    wanted = LEARNED_IN_PLACE if config.body.both_ways else LEARNED
    assert share >= wanted, f"it puts the certain next title first in {share:.2f} of cases"


def its_bundle_answers_as_itself(config: IntentModelConfig) -> None:
    """What is filed is all that it needs."""
    network, known = _network(config), _catalogue()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    again = build_intent(bundle_config(network, known), known, weights)
    asked = several_histories()
    one, other = (each.scores(asked, _soon(asked)) for each in (IntentRecommender(network, known), again))
    np.testing.assert_array_equal(one, other, err_msg="a bundle answers otherwise")


def a_head_that_is_off_is_absent(config: IntentModelConfig) -> None:
    """Data without classes for an intent: nothing is said of it, and the rest is as before."""
    if not config.body.has_heads or not config.intents:
        assert not _network(config).classes, "there are heads though none was asked for"
        return
    for heads in ((Intent.GENRE, Intent.RECENCY), ()):
        network = _network(config, heads=heads)
        answer = IntentRecommender(network, _catalogue()).predict(several_histories(), _soon(several_histories()))
        assert answer.heads == tuple(answer.intents) == tuple(heads), f"heads are {answer.heads}"
        assert answer.attention_BI.shape == (len(several_histories()), len(heads))
        assert np.isfinite(answer.scores_BN).all()


Rule = Callable[[IntentModelConfig], None]
RULES: tuple[Rule, ...] = (
    it_is_built_from_its_configuration_and_from_its_json,
    it_encodes_every_token,
    what_is_not_known_yet_is_not_read,
    what_it_is_packed_with_changes_nothing,
    it_recommends,
    its_loss_reaches_every_parameter,
    it_learns_a_rule,
    its_bundle_answers_as_itself,
    a_head_that_is_off_is_absent,
)
"""All of the contract."""


def _catalogue() -> Catalogue:
    return catalogue(titles_table(NUM_TITLES))


def _network(
    config: IntentModelConfig, known: Catalogue | None = None, *, heads: tuple[Intent, ...] | None = None
) -> IntentModel:
    """Make it with weights as if trained: large enough that what is wired shows."""
    known = known or _catalogue()
    possible = possible_classes(known)
    wanted = config.intents if heads is None else heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = IntentModel(config, known, {head: possible[head] for head in wanted if possible[head]}).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def _history(titles: list[int]) -> Histories:
    return one_history(titles, start=BEGIN_US)


def several_histories() -> Histories:
    """Histories of different lengths, also empty ones and such with unknown titles."""
    lists: list[list[int]] = [[], [1], [2, 3, 4, 5, 6, 7], [0, 0], [3, 0, 5], [4, 4, 4, 9] * 4, [2]]
    return concatenate([_history(one) for one in lists])


def _soon(histories: Histories) -> NDArray[np.int64]:
    """An hour after the newest interaction of each."""
    newest = [max(histories.at_T[start:stop], default=BEGIN_US) for start, stop in _spans(histories)]
    return np.array(newest, dtype=np.int64) + 60 * MINUTE_US


def _spans(histories: Histories) -> Iterator[tuple[int, int]]:
    return zip(histories.offsets_B1[:-1].tolist(), histories.offsets_B1[1:].tolist(), strict=True)


def _tokens(config: IntentModelConfig, histories: Histories) -> Sequences:
    return sequences(histories, _soon(histories), max_length=config.max_length, time_aware=config.time_aware)


@torch.inference_mode()
def _encode(network: IntentModel, tokens: Sequences) -> Encoded:
    encoded: Encoded = network(tokens, network.titles()[0])
    return encoded


def _same(a: Encoded, b: Encoded, span: slice, broken: str) -> None:
    pairs = [(a.item_TD, b.item_TD), *((a.intents[head], b.intents[head]) for head in a.intents)]
    for one, other in pairs:
        torch.testing.assert_close(one[span], other[span], atol=1e-4, rtol=1e-4, msg=lambda said: f"{broken}: {said}")


def _task(config: IntentModelConfig) -> IntentTask:
    """A network as it is built, and members who go round the titles from anywhere."""
    known = _catalogue()
    dice = np.random.default_rng(0)
    firsts = dice.integers(NUM_TITLES, size=80)
    members = [_history([(first + n) % NUM_TITLES + 1 for n in range(dice.integers(3, 9))]) for first in firsts]
    histories = concatenate(members)
    every_T = np.ones(len(histories.title_T), dtype=np.bool_)
    labels = {
        name: label_T.astype(np.int32)
        for name, label_T in intent_labels(histories, known, USUAL).items()
        if label_T.ndim == 1
    }
    examples = Examples(histories, every_T, ~every_T, every_T, labels)
    counted = census(examples, known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = IntentModel(config, known, classes_in(counted, config, known))
    return IntentTask(network, examples, counted, known, TrainingConfig(), rank=0, exclude_seen=False)


def _first(task: IntentTask) -> MicroBatch:
    return next(iter(next(iter(task.steps(1, 1)))))
