"""Every model of delayed feedback keeps the contract; the likelihoods are what one writes down by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.models.delayed import DelayedConfig, DelayedModel, Method
from foretaste.models.delayed_rows import Pending, PendingBatch
from foretaste.models.delayed_survival import Landmark, negative_log_likelihood
from foretaste.models.delayed_zoo import DELAYED, build_delayed, delayed_config, delayed_model
from foretaste.testing.pending import hidden, random_pending

EVERY: tuple[Method, ...] = tuple(DELAYED)
CPU = torch.device("cpu")
EDGES = torch.tensor([0.0, 1.0, 3.0, 10.0], dtype=torch.float64)


def made(method: Method, pending: Pending, *, seed: int = 0, shaken: bool = True, **changes: float) -> DelayedModel:
    """A model with random last layers, so that its answers differ."""
    config = DelayedConfig.model_validate({"method": method, "hidden": (8,), "code_width": 2} | changes)
    model = delayed_model(
        config, num_columns=pending.context_NF.shape[1], num_codes=5, num_signals=pending.signals_NS.shape[1], seed=seed
    )
    model.expect(pending.tensors(CPU))
    if shaken:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "out." in name:
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def loss_of(model: DelayedModel, batch: PendingBatch) -> Tensor:
    torch.manual_seed(0)
    return model.loss(batch)


def learned(model: DelayedModel, pending: Pending, *, steps: int = 300, rate: float = 0.03) -> DelayedModel:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batch = pending.tensors(CPU)
    for _ in range(steps):
        optimizer.zero_grad()
        (model.loss(batch) / len(pending)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("method", EVERY)
def test_what_is_seen_is_certain_what_is_too_late_impossible_and_all_else_a_probability(method: Method) -> None:
    pending = random_pending(200, seed=1)
    model = made(method, pending)
    batch = pending.tensors(CPU)
    given, final = model.given(batch).detach(), model.final(batch).detach()
    assert bool((given[batch.seen_N] == 1).all())
    assert bool((given[~batch.seen_N & (batch.age_N >= 14)] == 0).all())
    between = given[~batch.seen_N & (batch.age_N < 14)]
    for chance in (between, final):
        assert bool(((chance >= 0) & (chance <= 1)).all())
        assert len(torch.unique(chance)) > 20


@pytest.mark.parametrize("method", EVERY)
def test_only_the_oracle_reads_final_labels(method: Method) -> None:
    pending = random_pending(100, seed=2)
    model = made(method, pending)
    unknown = hidden(np.full(100, np.nan, np.float32), pending)
    told = loss_of(model, pending.tensors(CPU))
    if method == "oracle":
        with pytest.raises(ValueError, match="final label of every decision"):
            model.loss(unknown.tensors(CPU))
    else:
        assert torch.equal(told, loss_of(model, unknown.tensors(CPU)))


@pytest.mark.parametrize("method", EVERY)
def test_losses_of_parts_add_up_and_every_weight_of_the_answer_learns(method: Method) -> None:
    pending = random_pending(100, seed=3)
    model = made(method, pending, draws=4)  # all landmarks: nothing is left to the dice
    whole = model.loss(pending.tensors(CPU))
    parts = [model.loss(pending.rows(slice(a, b)).tensors(CPU)) for a, b in ((0, 30), (30, 100))]
    assert float(whole.detach()) == pytest.approx(float(sum(parts).detach()), rel=1e-5)  # type: ignore[union-attr]
    whole.backward()  # type: ignore[no-untyped-call]
    head = model.rates if method == "hazard" else model.tower
    assert isinstance(head, torch.nn.Module)
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("method", EVERY)
def test_where_nothing_is_late_every_model_finds_the_chance(method: Method) -> None:
    pending = random_pending(3_000, seed=4, oldest=0.0)
    pending = replace(pending, age_N=np.full(3_000, 14.0, np.float32))
    soon = np.where(pending.final_N > 0, np.float32(0.5), np.float32(np.inf))
    model = learned(made(method, pending, shaken=False, elapsed_days=1.0), replace(pending, delay_N=soon))
    batch = replace(pending, age_N=np.zeros(3_000, np.float32)).tensors(CPU)
    truth = 1.0 - torch.exp(-14.0 * 0.1 * torch.exp(batch.context_NF[:, 0]))
    assert float((model.final(batch).detach() - truth).abs().mean()) < 0.06


@pytest.mark.parametrize("method", EVERY)
def test_a_model_made_again_of_what_is_filed_answers_the_same(method: Method) -> None:
    pending = random_pending(50, seed=5)
    model = made(method, pending, seed=3).eval()
    again = build_delayed(delayed_config(model), model.state_dict())
    batch = pending.tensors(CPU)
    assert torch.equal(model.final(batch), again.final(batch))
    assert torch.equal(model.given(batch), again.given(batch))


def test_a_title_that_came_out_later_counts_as_one_that_nobody_knows() -> None:
    pending = random_pending(20, seed=6)
    model = made("landmark", pending)
    new, unknown = np.full(20, 9), np.zeros(20, np.int64)
    asked = [replace(pending, code_N=code).tensors(CPU) for code in (new, unknown)]
    assert torch.equal(model.final(asked[0]), model.final(asked[1]))


def test_the_likelihood_of_watched_decisions_is_what_is_written_down_by_hand() -> None:
    rate = torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64)
    cases = [  # from, age, delay, minus log-likelihood
        (0.0, 0.5, math.inf, 0.5 * 0.5),  # half a day old, nothing seen: says nothing of later days
        (0.0, 0.5, 0.2, 0.5 * 0.2 - math.log(0.5)),
        (0.0, 2.0, 2.0, 0.5 * 1 + 0.2 * 1 - math.log(0.2)),
        (0.0, 50.0, math.inf, 0.5 * 1 + 0.2 * 2 + 0.1 * 7),  # past the horizon: watched as long as it counts
        (0.0, 50.0, 12.0, 0.5 * 1 + 0.2 * 2 + 0.1 * 7),  # came too late to count
        (2.0, 5.0, 4.0, 0.2 * 1 + 0.1 * 1 - math.log(0.1)),  # from a landmark on
        (2.0, 2.0, math.inf, 0.0),
    ]
    start, age, delay, want = torch.tensor(cases, dtype=torch.float64).T
    found = negative_log_likelihood(torch.log(rate).expand(len(cases), 3), start, age, delay, EDGES)
    assert found.tolist() == pytest.approx(want.tolist(), abs=1e-12)


def slow_twin(log_rates: Tensor, start: float, age: float, delay: float) -> Tensor:
    """The same, interval by interval, readable."""
    horizon = float(EDGES[-1])
    end = min(age, delay, horizon)
    total = torch.zeros((), dtype=torch.float64)
    for k, (low, high) in enumerate(pairwise(EDGES.tolist())):
        days = min(end, high) - max(start, low)
        if days > 0:
            total = total + torch.exp(log_rates[k]) * days
        if delay <= min(age, horizon) and low < delay <= high:
            total = total - log_rates[k]
    return total


def test_gradients_of_the_likelihood_are_those_of_a_slow_twin() -> None:
    rng = np.random.default_rng(7)
    log_rates = torch.tensor(rng.normal(size=(200, 3)), dtype=torch.float64, requires_grad=True)
    twin_rates = log_rates.detach().clone().requires_grad_()
    age = 15.0 * rng.random(200)
    delay = np.where(rng.random(200) < 0.5, age * rng.random(200), np.inf)
    start = np.minimum(age, delay) * rng.random(200) * (rng.random(200) < 0.5)
    start_N, age_N, delay_N = (torch.tensor(column) for column in (start, age, delay))
    found = negative_log_likelihood(log_rates, start_N, age_N, delay_N, EDGES)
    twin = torch.stack([slow_twin(twin_rates[n], start[n], age[n], delay[n]) for n in range(200)])
    assert torch.allclose(found, twin, rtol=1e-12, atol=1e-12)
    found.sum().backward()  # type: ignore[no-untyped-call]
    twin.sum().backward()  # type: ignore[no-untyped-call]
    assert log_rates.grad is not None
    assert twin_rates.grad is not None
    assert torch.allclose(log_rates.grad, twin_rates.grad, rtol=1e-12, atol=1e-12)


def test_the_exponential_model_has_the_likelihood_and_the_posterior_of_its_paper() -> None:
    pending = random_pending(40, seed=8)
    model = made("dfm", pending)
    batch = pending.tensors(CPU)
    chance = torch.sigmoid(model.logit(batch)).double()
    rate = torch.exp(model._log_rate(batch)).double()  # type: ignore[operator]
    watched = batch.age_N.clamp(max=14.0).double()
    survives = 1.0 - chance + chance * torch.exp(-rate * watched)
    seen = torch.log(chance * rate) - rate * torch.where(batch.seen_N, batch.delay_N, 0.0).double()
    want = -torch.where(batch.seen_N, seen, torch.log(survives)).sum()
    assert float(model.loss(batch).detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    young = ~batch.seen_N & (batch.age_N < 14)
    posterior = chance * torch.exp(-rate * watched) / survives
    assert torch.allclose(model.given(batch).double()[young], posterior[young], rtol=1e-4)


@pytest.mark.parametrize("method", ["hazard", "landmark"])
def test_decisions_too_young_to_have_shown_much_bias_no_chance(method: Method) -> None:
    """Three quarters of the feedback of these comes within the horizon; half is known by now."""
    pending = random_pending(6_000, seed=9, strength=0.0, oldest=16.0)
    assert np.isfinite(pending.delay_N).mean() < 0.55
    model = learned(made(method, pending, shaken=False), pending, steps=250)
    now = replace(pending, age_N=np.zeros(6_000, np.float32), delay_N=np.full(6_000, np.inf, np.float32))
    told = model.final(now.tensors(CPU))
    assert float(told.detach().mean()) == pytest.approx(1.0 - math.exp(-1.4), abs=0.03)


def test_early_landmarks_are_not_those_of_decisions_whose_feedback_came_soon() -> None:
    """Drawn from the landmarks that each decision reached, mark 0 would be drawn most where no other was reached."""
    pending = random_pending(6_000, seed=10, strength=0.0, oldest=40.0)
    model = learned(made("landmark", pending, shaken=False, draws=1), pending, steps=400)
    now = replace(pending, age_N=np.zeros(6_000, np.float32), delay_N=np.full(6_000, np.inf, np.float32))
    told = model.given(now.tensors(CPU))
    assert float(told.detach().mean()) == pytest.approx(1.0 - math.exp(-1.4), abs=0.03)


def test_landmarks_that_a_decision_did_not_reach_are_not_read() -> None:
    pending = random_pending(100, seed=11)
    model = made("landmark", pending, draws=4)
    reached = pending.mark_NL < np.minimum(pending.age_N, pending.delay_N)[:, None]
    other = replace(pending, marked_NLS=np.where(reached[..., None], pending.marked_NLS, np.float32(0.9)))
    assert isinstance(model, Landmark)
    assert torch.equal(loss_of(model, pending.tensors(CPU)), loss_of(model, other.tensors(CPU)))


def test_rows_that_know_the_future_are_refused_by_number() -> None:
    pending = random_pending(5, seed=12)
    late = pending.age_N + np.where(np.arange(5) == 3, np.float32(1), np.float32(np.inf))
    with pytest.raises(ValueError, match="row 3: its feedback came"):
        replace(pending, delay_N=late)
    with pytest.raises(ValueError, match="code_N: wanted 5 rows"):
        replace(pending, code_N=np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="row 2: wanted times >= 0"):
        replace(pending, age_N=np.where(np.arange(5) == 2, np.float32(np.nan), pending.age_N))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="have to rise"):
        DelayedConfig(edges_days=(3.0, 2.0))
    with pytest.raises(ValueError, match="elapsed_days: wanted at most"):
        DelayedConfig(elapsed_days=20.0)
