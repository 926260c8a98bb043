"""One partition of members, lived through: round r is everyone's r-th session.

All that a round needs is arrays over the sessions that open in it; memory is bounded by the partition.

Shapes: S sessions of the round, X sessions that make one more choice, M members, N titles, P places of the slate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.events import Action
from foretaste.worlds.choices import Habits, Past, draw, draw_slates, make_habits, row_cdf, weights
from foretaste.worlds.config import DAY_US, MAX_CHOICES, SECOND_US, WorldConfig
from foretaste.worlds.intents import DISCOVER, Intents, draw_intents, pick
from foretaste.worlds.log import BROWSE, DEVICES, HOME, PLAYER, SEARCH, Log, SessionNames, events_table
from foretaste.worlds.members import COUNTRIES, Members, make_members, truth_members
from foretaste.worlds.names import GENRES
from foretaste.worlds.records import Records
from foretaste.worlds.titles import Titles
from foretaste.worlds.viewing import Viewing, match, next_visit, satisfaction, view

_NUM_CHOICES_ODDS = (0.30, 0.27, 0.20, 0.12, 0.07, 0.04)
_LOOK_ODDS = ((0.6, 0.25, 0.1, 0.05), (0.3, 0.35, 0.2, 0.15))  # 0 to 3 titles looked at; the second when discovering
_SEARCHES = (0.06, 0.22)
_BROWSES = (0.08, 0.22)
_TELLS_INTENT = 0.85
"""How often the genre that is searched for or browsed is the intended one, rather than one of the taste."""
_SEARCHES_GENRE = 0.75
_DEVICE_ODDS = (0.5, 0.3, 0.2)


@dataclass
class State:
    """What the members of a partition have seen so far."""

    last_MN: NDArray[np.int64]  # microseconds of the last choice, 0: never
    unfinished_MN: NDArray[np.bool_]  # movies
    watched_MN: NDArray[np.int32]  # episodes of shows

    @classmethod
    def empty(cls, members: int, titles: int) -> State:
        """Nobody has seen anything."""
        shape = (members, titles)
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.bool_), np.zeros(shape, np.int32))

    def past(self, titles: Titles, round_: Round) -> Past:
        """What the members of the round have behind them."""
        last_SN = self.last_MN[round_.member_S]
        more_SN = self.watched_MN[round_.member_S] < titles.episodes_DN[round_.day_S]
        return Past(
            seen_SN=last_SN > 0,
            recent_SN=round_.start_S[:, None] - last_SN <= 7 * DAY_US,
            open_SN=np.where(titles.show_N, more_SN, self.unfinished_MN[round_.member_S]),
        )


@dataclass(frozen=True)
class Round:
    """The sessions that open."""

    member_S: NDArray[np.int64]
    number_S: NDArray[np.int64]  # of the session in the partition
    start_S: NDArray[np.int64]
    day_S: NDArray[np.int64]
    guest_S: NDArray[np.bool_]
    num_choices_S: NDArray[np.int64]


@dataclass
class Running:
    """What the sessions of a round have and how far they are."""

    intents: Intents
    slate_SP: NDArray[np.int64]
    weight_SN: NDArray[np.float64]
    told_genre_S: NDArray[np.int64]
    clock_S: NDArray[np.int64]
    match_S: NDArray[np.float64]  # summed over choices
    fraction_S: NDArray[np.float64]


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

    def run(self) -> None:
        """Live through the window: each member's next session opens when the last one let them return."""
        visit_M = self.members.first_visit_M.copy()
        while len(member_S := np.flatnonzero(visit_M < self.config.end_us)):
            round_ = self._open(member_S, visit_M[member_S])
            running = self._begin(round_)
            for step in range(MAX_CHOICES):
                self._choose(step, np.flatnonzero(round_.num_choices_S > step), round_, running)
            visit_M[member_S] = self._close(round_, running)

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
        """Draw the intents, show the slates, weigh the titles."""
        config, rng, num = self.config, self.rng, len(round_.member_S)
        past = self.state.past(self.titles, round_)
        taste_SG = self.members.taste_MG[round_.member_S]
        intents = draw_intents(
            config,
            taste_SG,
            self.members.show_share_M[round_.member_S],
            past.to_continue_SN.any(axis=1),
            past.to_return_SN.any(axis=1),
            rng,
        )
        policy_row_S = np.where(round_.guest_S, len(self.members), round_.member_S)
        available_S = self.titles.available_D[round_.day_S]
        slate_SP, propensity_SP = draw_slates(config, self.habits, policy_row_S, available_S, rng)
        self._show(round_, slate_SP, propensity_SP)
        tells_S = (rng.random(num) < _TELLS_INTENT) & config.intents
        return Running(
            intents=intents,
            slate_SP=slate_SP,
            weight_SN=weights(
                config, self.titles, self.habits, round_.member_S, round_.day_S, past, intents, slate_SP
            ),
            told_genre_S=np.where(tells_S, intents.genre_S, pick(taste_SG, rng)),
            clock_S=round_.start_S + seconds(rng.exponential(8.0, num) + 2.0),
            match_S=np.zeros(num),
            fraction_S=np.zeros(num),
        )

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

    def _choose(self, step: int, rows: NDArray[np.int64], round_: Round, running: Running) -> None:
        """Look around, choose a title, watch it, say so."""
        if not len(rows):
            return
        config, titles, rng, num = self.config, self.titles, self.rng, len(rows)
        weight_XN = running.weight_SN[rows]
        cdf = row_cdf(weight_XN)
        chosen_X = draw(cdf, len(titles), np.arange(num), rng.random(num))
        probability_X = weight_XN[np.arange(num), chosen_X] / weight_XN.sum(axis=1)
        searches_X = self._ask(rows, chosen_X, round_, running)
        self._look(rows, cdf, searches_X, round_, running)

        member_X = round_.member_S[rows]
        match_X = match(
            config, titles, self.habits.affinity_MN[member_X, chosen_X], running.intents, rows, chosen_X
        )
        place_X, slated_X = self._through_slate(rows, chosen_X, running)
        surface_X = np.where(slated_X, HOME, np.where(searches_X, SEARCH, BROWSE))
        origin = {"surface": surface_X, "position": np.where(slated_X, place_X, -1), "decided": slated_X}
        self._detail(rows, chosen_X, rng.random(num) < 0.5, match_X, origin, round_, running)
        at_X = running.clock_S[rows]
        viewing = self._play(rows, chosen_X, match_X, origin, round_, running)
        fraction_X = np.where(viewing.played_XR, viewing.fraction_XR, 0.0).max(axis=1)
        self._thumb(rows, chosen_X, 0.5 * match_X + 0.5 * fraction_X, round_, running)

        self.records.choices(
            session=round_.number_S[rows],
            step=np.full(num, step),
            at=at_X,
            title=chosen_X,
            probability=probability_X,
            num_available=np.count_nonzero(weight_XN, axis=1),
            from_slate=slated_X,
            match=match_X,
            played_fraction=fraction_X,
            completed=viewing.complete_XR.any(axis=1),
            num_episodes=viewing.played_XR.sum(axis=1) * titles.show_N[chosen_X],
        )
        running.match_S[rows] += match_X
        running.fraction_S[rows] += fraction_X
        running.weight_SN[rows, chosen_X] = 0.0
        self.state.last_MN[member_X, chosen_X] = at_X
        self.state.unfinished_MN[member_X, chosen_X] = ~viewing.complete_XR.any(axis=1)

    def _ask(
        self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64], round_: Round, running: Running
    ) -> NDArray[np.bool_]:
        """Some browse the row of a genre, some search for a genre or a word of the title; says who searched."""
        rng, num = self.rng, len(rows)
        discovers_X = (running.intents.action_S[rows] == DISCOVER).astype(np.int64)
        genre_X = running.told_genre_S[rows]
        browses_X = rng.random(num) < np.array(_BROWSES)[discovers_X]
        searches_X = rng.random(num) < np.array(_SEARCHES)[discovers_X]
        query_X = np.where(rng.random(num) < _SEARCHES_GENRE, genre_X, chosen_X + len(GENRES))
        for action, mask_X, values_X in (
            (Action.BROWSE, browses_X, {"genre": genre_X, "surface": np.full(num, BROWSE)}),
            (Action.SEARCH, searches_X, {"query": query_X, "surface": np.full(num, SEARCH)}),
        ):
            who = rows[mask_X]
            values = {name: value[mask_X] for name, value in values_X.items()}
            self.log.add(action, round_.number_S[who], running.clock_S[who], **values)
            running.clock_S[who] += seconds(rng.exponential(6.0, len(who)) + 2.0)
        return searches_X

    def _look(
        self,
        rows: NDArray[np.int64],
        cdf: NDArray[np.float64],
        searches_X: NDArray[np.bool_],
        round_: Round,
        running: Running,
    ) -> None:
        """Open the page of up to three titles, each drawn as the choice is; some are put on the list."""
        rng, num, width = self.rng, len(rows), len(self.titles)
        discovers_X = (running.intents.action_S[rows] == DISCOVER).astype(np.int64)
        looks_X = pick(np.array(_LOOK_ODDS)[discovers_X], rng)
        for look in range(3):
            who = np.flatnonzero(looks_X > look)
            title = draw(cdf, width, who, rng.random(len(who)))
            place, slated = self._through_slate(rows[who], title, running)
            surface = np.where(slated, HOME, np.where(searches_X[who], SEARCH, BROWSE))
            origin = {"surface": surface, "position": np.where(slated, place, -1), "decided": slated}
            self._detail(rows[who], title, np.ones(len(who), np.bool_), np.zeros(len(who)), origin, round_, running)
            keeps = rng.random(len(who)) < 0.06
            keepers = rows[who[keeps]]
            self.log.add(
                Action.ADD_TO_LIST,
                round_.number_S[keepers],
                running.clock_S[keepers],
                title=title[keeps],
                surface=surface[keeps],
            )
            running.clock_S[keepers] += seconds(np.full(len(keepers), 1.5))
        running.clock_S[rows] += seconds(rng.exponential(5.0, num) + 1.0)

    def _through_slate(
        self, rows: NDArray[np.int64], title_X: NDArray[np.int64], running: Running
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Say where on the slate a title stands, and whether it was found there rather than elsewhere."""
        on_XP = running.slate_SP[rows] == title_X[:, None]
        place_X = on_XP.argmax(axis=1)
        boost_X = self.config.slate_boost / (1.0 + place_X)
        return place_X, on_XP.any(axis=1) & (self.rng.random(len(rows)) < boost_X / (1.0 + boost_X))

    def _detail(
        self,
        rows: NDArray[np.int64],
        title_X: NDArray[np.int64],
        mask_X: NDArray[np.bool_],
        match_X: NDArray[np.float64],
        origin: dict[str, NDArray[np.int64]],
        round_: Round,
        running: Running,
    ) -> None:
        who = rows[mask_X]
        dwell = self.rng.lognormal(2.0, 0.6, len(who)) * (1.0 + match_X[mask_X]) + 1.0
        values = {name: value[mask_X] for name, value in origin.items()}
        at = running.clock_S[who]
        self.log.add(Action.DETAIL, round_.number_S[who], at, title=title_X[mask_X], dwell=dwell, **values)
        running.clock_S[who] += seconds(dwell + 1.0)

    def _play(
        self,
        rows: NDArray[np.int64],
        chosen_X: NDArray[np.int64],
        match_X: NDArray[np.float64],
        origin: dict[str, NDArray[np.int64]],
        round_: Round,
        running: Running,
    ) -> Viewing:
        """Play the movie or the next episodes; each play ends with stop or complete."""
        titles, member_X = self.titles, round_.member_S[rows]
        released_X = titles.episodes_DN[round_.day_S[rows], chosen_X]
        next_X = self.state.watched_MN[member_X, chosen_X]
        next_X = np.where(next_X >= released_X, 0, next_X)
        viewing = view(titles, chosen_X, match_X, next_X, released_X, self.rng)
        first_X = len(titles) + titles.episodes.first_N1[chosen_X]
        for r in range(viewing.played_XR.shape[1]):
            x = np.flatnonzero(viewing.played_XR[:, r])
            who = rows[x]
            row = np.where(titles.show_N[chosen_X[x]], first_X[x] + viewing.episode_XR[x, r], chosen_X[x])
            started = origin if r == 0 else {"surface": np.full(len(rows), PLAYER)}
            values = {name: value[x] for name, value in started.items()}
            self.log.add(Action.PLAY, round_.number_S[who], running.clock_S[who], title=row, **values)
            fraction = viewing.fraction_XR[x, r]
            dwell = fraction * titles.runtime_N[chosen_X[x]] * 60.0
            running.clock_S[who] += seconds(dwell + 1.0)
            for action, ends in ((Action.COMPLETE, viewing.complete_XR[x, r]), (Action.STOP, ~viewing.complete_XR[x, r])):
                self.log.add(
                    action,
                    round_.number_S[who[ends]],
                    running.clock_S[who[ends]],
                    title=row[ends],
                    surface=PLAYER,
                    dwell=dwell[ends],
                    fraction=fraction[ends],
                )
            running.clock_S[who] += seconds(np.full(len(who), 4.0))
        self.state.watched_MN[member_X, chosen_X] = next_X + viewing.complete_XR.sum(axis=1)
        return viewing

    def _thumb(
        self,
        rows: NDArray[np.int64],
        chosen_X: NDArray[np.int64],
        liking_X: NDArray[np.float64],
        round_: Round,
        running: Running,
    ) -> None:
        u_X = self.rng.random(len(rows))
        for action, mask_X in (
            (Action.THUMB_UP, u_X < 0.14 * liking_X),
            (Action.THUMB_DOWN, u_X > 1.0 - 0.06 * (1.0 - liking_X)),
        ):
            who = rows[mask_X]
            self.log.add(action, round_.number_S[who], running.clock_S[who], title=chosen_X[mask_X], surface=PLAYER)
        running.clock_S[rows] += seconds(self.rng.exponential(12.0, len(rows)) + 2.0)

    def _close(self, round_: Round, running: Running) -> NDArray[np.int64]:
        """Settle satisfaction, and with it the next visit, which is given."""
        mean_match_S = running.match_S / round_.num_choices_S
        mean_fraction_S = running.fraction_S / round_.num_choices_S
        satisfaction_S = satisfaction(mean_match_S, mean_fraction_S, self.rng)
        gap_S, evening_S = self.members.gap_days_M[round_.member_S], self.members.evening_M[round_.member_S]
        returned_S = next_visit(self.config, gap_S, evening_S, satisfaction_S, running.clock_S, self.rng)
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
            satisfaction=satisfaction_S,
            mean_match=mean_match_S,
            mean_fraction=mean_fraction_S,
            returned_at=returned_S,
        )
        return returned_S


def seconds(value_X: NDArray[np.float64]) -> NDArray[np.int64]:
    """Microseconds of a number of seconds."""
    return np.asarray(value_X * SECOND_US).astype(np.int64)
