"""Every sequence model keeps one contract, and each is what its source says it is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretaste.models.bodies import (
    Body,
    BodyConfig,
    HstuConfig,
    LigrConfig,
    RecurrentConfig,
    Sizes,
    TransActConfig,
    TransformerConfig,
)
from foretaste.models.bodies.foretaste import TimeBias
from foretaste.models.bodies.hstu import NUM_TIMES, STEP, Hstu, HstuLayer
from foretaste.models.bodies.ligr import Ligr, LigrLayer
from foretaste.models.bodies.recurrent import Recurrent
from foretaste.models.bodies.transact import TransAct, before, newest
from foretaste.models.bodies.transformer import Transformer
from foretaste.models.intent import IntentModelConfig
from foretaste.models.layout import Group
from foretaste.models.sequences import NUM_GAPS, Sequences, sequences
from foretaste.models.zoo import NETWORKS, network
from foretaste.testing.contract_network import RULES, Rule, several_histories
from foretaste.testing.contract_recommender import MINUTE_US, START_US, one_history

SMALL = IntentModelConfig(width=16, feedforward=32, max_length=8, dropout=0.1)
SIZES = Sizes(width=16, num_attention_heads=2, feedforward=32, dropout=0.0, max_length=8)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_network_keeps_the_contract(rule: Rule, name: str) -> None:
    rule(network(name, SMALL))


def close(got: Tensor, want: Tensor, *, within: float = 1e-4, what: str = "") -> None:
    torch.testing.assert_close(got, want, atol=within, rtol=within, msg=lambda said: f"{what} {said}")


def tokens() -> Sequences:
    """Sequences of 1, 2, 7, 3, 4, 9 and 2 tokens."""
    histories = several_histories()
    return sequences(histories, np.full(len(histories), START_US + 10**14), max_length=8, time_aware=True)


def features(given: Sequences) -> Tensor:
    return torch.randn(len(given.title_T), SIZES.width, generator=torch.Generator().manual_seed(3))


def spans(given: Sequences) -> list[slice]:
    bounds = given.layout.offsets_B1.tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def built(config: BodyConfig) -> Body:
    torch.manual_seed(0)
    body = config.build(SIZES, {})
    assert isinstance(body, nn.Module)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    body.eval()
    return body


def attended(query_LD: Tensor, key_LD: Tensor, value_LD: Tensor) -> Tensor:
    """Softmax attention of two heads, each over those up to itself, one query after the other."""
    rows = []
    for t in range(len(query_LD)):
        heads = []
        for part in (slice(0, 8), slice(8, 16)):
            weight = torch.softmax(key_LD[: t + 1, part] @ query_LD[t, part] / 8**0.5, dim=0)
            heads.append(weight @ value_LD[: t + 1, part])
        rows.append(torch.cat(heads))
    return torch.stack(rows)


@pytest.mark.parametrize("reads", ["past", "both"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrent_network_gives_what_torch_gives_for_each_sequence_alone(cell: str, reads: str) -> None:
    body, given = built(RecurrentConfig.model_validate({"cell": cell, "reads": reads, "layers": 2})), tokens()
    assert isinstance(body, Recurrent)
    make, both = (nn.GRU if cell == "gru" else nn.LSTM), reads == "both"
    theirs = make(16, 16, num_layers=2, batch_first=True, bidirectional=both)
    state: dict[str, Tensor] = {}
    for suffix, stack in (("", body.forwards), ("_reverse", body.backwards)):
        for layer, cells in enumerate(stack):
            state |= {f"{one.removesuffix('_l0')}_l{layer}{suffix}": w for one, w in cells.state_dict().items()}
    theirs.load_state_dict(state)
    x_TD = features(given)
    hidden_TH = torch.cat([theirs(x_TD[span][None])[0][0] for span in spans(given)])
    close(body(x_TD, given).item_TD, body.norm(body.to_width(hidden_TH)))


@pytest.mark.parametrize("reads", ["past", "both"])
def test_a_transformer_is_torch_s_own_with_the_same_weights(reads: str) -> None:
    body, given = built(TransformerConfig.model_validate({"reads": reads})), tokens()
    assert isinstance(body, Transformer)
    assert body.positions is not None
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, activation=F.gelu, batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, len(body.blocks), norm=body.norm, enable_nested_tensor=False).eval()
    for torchs, ours in zip(theirs.layers, body.blocks, strict=True):
        names = {
            "self_attn.in_proj_weight": "to_qkv.weight", "self_attn.out_proj.weight": "from_heads.weight",
            "linear1.weight": "up.weight", "linear1.bias": "up.bias", "linear2.weight": "down.weight",
            "linear2.bias": "down.bias", "norm1.weight": "before_attention.weight",
            "norm1.bias": "before_attention.bias", "norm2.weight": "before_feedforward.weight",
            "norm2.bias": "before_feedforward.bias",
        }  # fmt: skip
        state = {name: torch.zeros_like(tensor) for name, tensor in torchs.state_dict().items()}
        torchs.load_state_dict(state | {one: ours.state_dict()[other] for one, other in names.items()})
    x_TD = features(given)
    got_TD = body(x_TD, given).item_TD
    for span in spans(given):
        length = span.stop - span.start
        x_1LD = (x_TD[span] + body.positions.vectors.weight[:length].flip(0))[None]
        mask = nn.Transformer.generate_square_subsequent_mask(length) if reads == "past" else None
        close(got_TD[span], theirs(x_1LD, mask=mask, is_causal=mask is not None)[0])


def test_a_ligr_layer_gates_what_attention_and_swiglu_add() -> None:
    body, given = built(LigrConfig(blocks=1)), tokens()
    assert isinstance(body, Ligr)
    layer, x_TD = body.layers[0], features(given)
    assert isinstance(layer, LigrLayer)
    assert isinstance(layer, LigrLayer)
    for span in spans(given):
        x = x_TD[span] + body.positions.vectors.weight[: span.stop - span.start].flip(0)
        q, k, v = layer.to_qkv(layer.before_attention(x)).chunk(3, dim=1)
        x = x + torch.sigmoid(layer.attention_gate(x)) * layer.from_heads(attended(q, k, v))
        gate, value = layer.feedforward.up(layer.before_feedforward(x)).chunk(2, dim=1)
        made = layer.feedforward.down(gate * torch.sigmoid(gate) * value)
        x = x + torch.sigmoid(layer.feedforward_gate(x)) * made
        close(body(x_TD, given).item_TD[span], body.norm(x))


def slow_hstu(body: Hstu, x_LD: Tensor, minute_L: list[float], now_L: list[float]) -> Tensor:
    """One sequence, one query and one key at a time."""
    x_LD = x_LD + body.positions.vectors.weight[: len(x_LD)].flip(0)
    for layer in body.layers:
        assert isinstance(layer, HstuLayer)
        u_LD, q_LD, k_LD, v_LD = F.silu(layer.to_uqkv(layer.norm(x_LD))).chunk(4, dim=1)
        rows = []
        for t in range(len(x_LD)):
            mixed = torch.zeros(16)
            for s in range(t + 1):
                seconds = max(1.0, (now_L[t] - minute_L[s]) * 60.0)
                bias = layer.distance[t - s] + layer.time[min(NUM_TIMES - 1, int(np.log(seconds) / STEP))]
                for part in (slice(0, 8), slice(8, 16)):
                    mixed[part] += F.silu(q_LD[t, part] @ k_LD[s, part] + bias) * v_LD[s, part]
            rows.append(u_LD[t] * F.layer_norm(mixed / (t + 1), (16,)))
        x_LD = x_LD + layer.down(torch.stack(rows))
    normed_LD: Tensor = body.norm(x_LD)
    return normed_LD


def test_hstu_agrees_with_its_slow_twin_in_what_it_says_and_in_its_gradients() -> None:
    body, given = built(HstuConfig()), tokens()
    assert isinstance(body, Hstu)
    x_TD = features(given)
    minute_T, now_T = given.minute_T.tolist(), given.now_T.tolist()
    slow_TD = torch.cat([slow_hstu(body, x_TD[span], minute_T[span], now_T[span]) for span in spans(given)])
    fast_TD = body(x_TD, given).item_TD
    close(fast_TD, slow_TD)
    names, parameters = zip(*body.named_parameters(), strict=True)
    slow, fast = (torch.autograd.grad(one.pow(3).sum(), parameters) for one in (slow_TD, fast_TD))
    for name, one, other in zip(names, slow, fast, strict=True):
        close(one, other, within=1e-3, what=name)


def test_hstu_reads_how_long_ago_each_interaction_was() -> None:
    body, given = built(HstuConfig()), tokens()
    later = replace(given, now_T=given.now_T + 1_440.0 * 30)
    assert not torch.allclose(body(features(given), given).item_TD, body(features(given), later).item_TD, atol=1e-3)


def test_transact_reads_the_newest_outputs_and_a_maximum_over_all() -> None:
    body, given = built(TransActConfig(newest=3)), tokens()
    assert isinstance(body, TransAct)
    x_TD = features(given)
    output_TD = x_TD
    for block in body.blocks:
        output_TD = block(output_TD, given.layout)
    output_TD = body.norm(output_TD)
    got_TD = body(x_TD, given).item_TD
    for span in spans(given):
        for t in range(span.start, span.stop):
            near = [output_TD[t - j] if t - j >= span.start else torch.zeros(16) for j in range(3)]
            read = torch.cat([*near, output_TD[span.start : t + 1].max(dim=0).values])
            want = body.last_norm(body.down(F.gelu(body.up(read))))
            close(got_TD[t], want)


def test_more_newest_outputs_than_there_are_tokens_is_no_trouble() -> None:
    given = sequences(one_history([]), np.array([START_US]), max_length=8, time_aware=True)
    x_1D = torch.ones(1, 16)
    shifted = newest(x_1D, given.layout, 4)
    assert [one.sum().item() for one in shifted] == [16.0, 0.0, 0.0, 0.0]


def test_a_time_window_hides_what_was_done_within_it_and_never_the_start() -> None:
    history = one_history([1, 2, 3, 4], per_session=2)  # at 0, 1, then a day and 2 and 3 minutes
    asof = history.at_T[-1:] + 10 * MINUTE_US
    given = sequences(history, asof, max_length=8, time_aware=True)
    found = {
        minutes: before(given, torch.full((5,), float(minutes), dtype=torch.float64)).tolist()
        for minutes in (-1, 0, 10.5, 60, 99_999)
    }
    assert found[-1] == found[0] == [0, 1, 2, 3, 4]
    assert found[10.5] == [0, 0, 2, 2, 3]
    assert found[60] == [0, 0, 2, 2, 2]
    assert found[99_999] == [0, 0, 0, 0, 0]


def test_a_time_window_of_one_sequence_stays_within_it() -> None:
    given = tokens()
    window_T = torch.full((len(given.title_T),), 1e7, dtype=torch.float64)
    starts = torch.tensor([span.start for span in spans(given) for _ in range(span.stop - span.start)])
    assert torch.equal(before(given, window_T), starts)


def test_the_random_time_window_is_drawn_in_training_alone() -> None:
    body, given = built(TransActConfig(mask_share=1.0, mask_hours=48.0)), tokens()
    assert isinstance(body, TransAct)
    x_TD = features(given)
    asked = body(x_TD, given).item_TD
    close(asked, body(x_TD, given).item_TD)
    assert not torch.allclose(body.train()(x_TD, given).item_TD, asked)


def test_the_bias_by_time_is_an_embedding_with_its_gradient() -> None:
    dice = torch.Generator().manual_seed(4)
    bias = TimeBias(3)
    with torch.no_grad():
        bias.by_gap.weight.copy_(torch.randn(NUM_GAPS, 3, generator=dice))
    gaps = torch.randint(NUM_GAPS, (2, 5, 5), generator=dice)
    weight = torch.randn(2, 3, 5, 5, generator=dice).tril()
    group = Group(0, 2, 5, torch.tensor([5, 5]))
    mine = bias.of({0: gaps})(group)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert torch.isneginf(mine[..., later]).all()
    plain = F.embedding(gaps, bias.by_gap.weight).permute(0, 3, 1, 2)
    assert torch.equal(mine[..., ~later], plain[..., ~later])
    wanted = torch.autograd.grad((plain * weight).sum(), bias.by_gap.weight)
    torch.testing.assert_close(
        torch.autograd.grad((mine.masked_fill(later, 0.0) * weight).sum(), bias.by_gap.weight), wanted
    )
