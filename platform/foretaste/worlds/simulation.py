"""One partition of members, lived through: round r is everyone's r-th session.

All that a round needs is arrays over the sessions that open in it; memory is bounded by the partition.

Shapes: S sessions of the round, X sessions that make one more choice, M members, N titles, P places of the slate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.events import Action
from foretaste.worlds import aspects, weights
from foretaste.worlds.acts import ask, detail, look, origin, play, thumb
from foretaste.worlds.choices import Habits, Habitual, Mechanism, Offer, draw, row_cdf
from foretaste.worlds.config import DAY_US, MAX_CHOICES, WorldConfig
from foretaste.worlds.information import information, primary, true_rank
from foretaste.worlds.intents import Intents, Visitors, pick
from foretaste.worlds.log import DEVICES, HOME, Log
from foretaste.worlds.members import Members
from foretaste.worlds.records import Records
from foretaste.worlds.scenes import Round, Running, Scene, State, seconds
from foretaste.worlds.slates import Logging, SlatePolicy
from foretaste.worlds.titles import Titles
from foretaste.worlds.viewing import next_visit, satisfaction

_NUM_CHOICES_ODDS = (0.30, 0.27, 0.20, 0.12, 0.07, 0.04)
_TELLS_INTENT = 0.85
"""How often the genre that is searched for or browsed is the intended one, rather than one of the taste."""
_READS_FIRST = 0.5
"""How often the page of a title is read before it plays."""
_DEVICE_ODDS = (0.5, 0.3, 0.2)

_DRAW_INTENTS = {"weights": weights.draw_intents, "aspects": aspects.draw_intents}
_MECHANISMS: dict[str, type[weights.Weights] | type[aspects.Aspects]] = {
    "weights": weights.Weights,
    "aspects": aspects.Aspects,
}


class Watch(Protocol):
    """Whom a simulation tells what happens, while it happens."""

    def begun(self, round_: Round, running: Running) -> None:
        """Sessions opened; nothing is chosen yet."""
        ...

    def chose(
        self,
        step: int,
        rows: NDArray[np.int64],
        title_X: NDArray[np.int64],
        place_X: NDArray[np.int64],
        completed_X: NDArray[np.bool_],
    ) -> None:
        """Some sessions of the round made a choice, the step-th; -1 is the place of what the slate did not lead to."""
        ...

    def left(self, round_: Round, satisfaction_S: NDArray[np.float64], returned_S: NDArray[np.int64]) -> None:
        """Sessions ended; given is when their members come back."""
        ...


@dataclass
class Simulation:
    """A partition on its way through the window."""

    config: WorldConfig
    titles: Titles
    members: Members
    habits: Habits
    state: State
    rng: np.random.Generator
    log: Log = field(default_factory=Log)
    records: Records = field(default_factory=Records)
    slates: SlatePolicy | None = None  # None: the logging policy
    watch: Watch | None = None
    visit_M: NDArray[np.int64] = field(init=False)  # start of the members' next sessions

    def __post_init__(self) -> None:
        """Nobody has come yet."""
        self.visit_M = self.members.first_visit_M.copy()

    def run(self) -> None:
        """Live through the window."""
        self.live_until(self.config.end_us)

    def live_until(self, until_us: int) -> None:
        """Live on to a moment: each member's next session opens when the last one let them return.

        The last round is empty, so that every record has its columns also where nobody comes.
        """
        member_S = np.arange(len(self.members))
        while len(member_S):
            member_S = np.flatnonzero(self.visit_M < until_us)
            round_ = self._open(member_S, self.visit_M[member_S])
            running = self._begin(round_)
            if self.watch is not None:
                self.watch.begun(round_, running)
            scene = Scene(self.config, self.titles, self.state, self.rng, self.log, round_, running)
            for step in range(MAX_CHOICES):
                self._choose(step, np.flatnonzero(round_.num_choices_S > step), scene)
            self.visit_M[member_S] = self._close(round_, running)

    def _open(self, member_S: NDArray[np.int64], start_S: NDArray[np.int64]) -> Round:
        num = len(member_S)
        return Round(
            member_S=member_S,
            number_S=self.records.num_sessions + np.arange(num),
            start_S=start_S,
            day_S=(start_S - self.config.first_us) // DAY_US,
            guest_S=self.rng.random(num) < self.config.guest_share,
            num_choices_S=self.rng.choice(MAX_CHOICES, size=num, p=_NUM_CHOICES_ODDS) + 1,
        )

    def _begin(self, round_: Round) -> Running:
        """Draw the intents, show the slates, open what there is to choose."""
        config, rng, num = self.config, self.rng, len(round_.member_S)
        past = self.state.past(self.titles, round_)
        taste_SG = self.members.taste_MG[round_.member_S]
        visitors = Visitors(
            taste_SG=taste_SG,
            show_share_S=self.members.show_share_M[round_.member_S],
            can_continue_S=np.any(past.to_continue(), axis=1),
            can_return_S=np.any(past.to_return(), axis=1),
        )
        intents = _DRAW_INTENTS[config.mechanism](config, visitors, rng)
        policy_row_S = np.where(round_.guest_S, len(self.members), round_.member_S)
        available_S = self.titles.available_D[round_.day_S]
        policy = self.slates or Logging(config, self.habits)
        slate_SP, propensity_SP = policy(policy_row_S, available_S, rng)
        self._show(round_, slate_SP, propensity_SP)
        tells_S = (rng.random(num) < _TELLS_INTENT) & config.intents & (intents.genre_S >= 0)
        offer = Offer(config, self.titles, self.habits, round_.member_S, round_.day_S, past, slate_SP)
        mechanism = self._mechanism(offer, intents)
        return Running(
            intents=intents,
            offer=offer,
            mechanism=mechanism,
            information_SA=information(mechanism, intents.wished_SA & config.intents),
            told_genre_S=np.where(tells_S, intents.genre_S, pick(taste_SG, rng)),
            clock_S=round_.start_S + seconds(rng.exponential(8.0, num) + 2.0),
            match_S=np.zeros(num),
            fraction_S=np.zeros(num),
        )

    def _mechanism(self, offer: Offer, intents: Intents) -> Mechanism:
        if not self.config.intents:
            return Habitual(offer, intents)
        return _MECHANISMS[self.config.mechanism](offer, intents)

    def _show(self, round_: Round, slate_SP: NDArray[np.int64], propensity_SP: NDArray[np.float64]) -> None:
        place_SP = np.broadcast_to(np.arange(slate_SP.shape[1]), slate_SP.shape)
        self.log.add(
            Action.IMPRESSION,
            np.broadcast_to(round_.number_S[:, None], slate_SP.shape),
            round_.start_S[:, None] + place_SP * 1_000,
            title=slate_SP,
            surface=HOME,
            position=place_SP,
            decided=True,
            propensity=propensity_SP,
        )

    def _choose(self, step: int, rows: NDArray[np.int64], scene: Scene) -> None:
        """Look around, choose a title, watch it, say so."""
        rng, num, running = self.rng, len(rows), scene.running
        weight_XN = running.mechanism.weigh(rows)
        cdf = row_cdf(weight_XN)
        chosen_X = draw(cdf, len(self.titles), np.arange(num), rng.random(num))
        searches_X = ask(scene, rows, chosen_X)
        look(scene, rows, cdf, searches_X)

        member_X = scene.round_.member_S[rows]
        match_X = running.mechanism.match(rows, chosen_X)
        found_by = origin(scene, rows, chosen_X, searches_X)
        reads = np.flatnonzero(rng.random(num) < _READS_FIRST)
        reads_by = {name: value[reads] for name, value in found_by.items()}
        detail(scene, rows[reads], chosen_X[reads], match_X[reads], reads_by)
        at_X = running.clock_S[rows]
        viewing = play(scene, rows, chosen_X, match_X, found_by)
        fraction_X = np.where(viewing.played_XR, viewing.fraction_XR, 0.0).max(axis=1)
        completed_X = np.any(viewing.complete_XR, axis=1)
        thumb(scene, rows, chosen_X, 0.5 * match_X + 0.5 * fraction_X)

        self.records.choices(
            session=scene.round_.number_S[rows],
            step=np.full(num, step),
            at=at_X,
            title=chosen_X,
            probability=weight_XN[np.arange(num), chosen_X] / weight_XN.sum(axis=1),
            num_available=np.count_nonzero(weight_XN, axis=1),
            true_rank=true_rank(weight_XN, chosen_X),
            true_rank_without_intents=true_rank(running.offer.habitual_SN[rows], chosen_X),
            num_sated=running.mechanism.num_sated_S[rows],
            from_slate=found_by["decided"],
            match=match_X,
            played_fraction=fraction_X,
            completed=completed_X,
            num_episodes=viewing.played_XR.sum(axis=1) * self.titles.show_N[chosen_X],
        )
        if self.watch is not None:
            self.watch.chose(step, rows, chosen_X, found_by["position"], completed_X)
        running.match_S[rows] += match_X
        running.fraction_S[rows] += fraction_X
        running.offer.take(rows, chosen_X)
        running.mechanism.move_on(rows, chosen_X, rng)
        self.state.last_MN[member_X, chosen_X] = at_X
        self.state.unfinished_MN[member_X, chosen_X] = ~completed_X

    def _close(self, round_: Round, running: Running) -> NDArray[np.int64]:
        """Settle satisfaction, and with it the next visit, which is given."""
        mean_match_S = running.match_S / round_.num_choices_S
        mean_fraction_S = running.fraction_S / round_.num_choices_S
        satisfaction_S = satisfaction(mean_match_S, mean_fraction_S, self.rng)
        gap_S, evening_S = self.members.gap_days_M[round_.member_S], self.members.evening_M[round_.member_S]
        returned_S = next_visit(self.config, gap_S, evening_S, satisfaction_S, running.clock_S, self.rng)
        if self.watch is not None:
            self.watch.left(round_, satisfaction_S, returned_S)
        self.records.sessions(
            member=round_.member_S,
            guest=round_.guest_S,
            device=self.rng.choice(len(DEVICES), size=len(returned_S), p=_DEVICE_ODDS),
            started_at=round_.start_S,
            ended_at=running.clock_S,
            num_choices=round_.num_choices_S,
            departs=running.intents.departs_S,
            genre=running.intents.genre_S,
            kind=running.intents.kind_S,
            action=running.intents.action_S,
            recency=running.intents.recency_S,
            aspects=running.intents.order_SA,
            information=running.information_SA,
            primary_intent=primary(running.information_SA),
            satisfaction=satisfaction_S,
            mean_match=mean_match_S,
            mean_fraction=mean_fraction_S,
            returned_at=returned_S,
        )
        return returned_S
