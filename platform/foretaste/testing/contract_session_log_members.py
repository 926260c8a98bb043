"""What a session log keeps of members as a whole: merges of guests and deletions."""

from __future__ import annotations

import threading
import time
from contextlib import closing

from foretaste.testing.session_log_events import (
    CONFIG,
    NOW,
    K,
    Opener,
    drain,
    event,
    ids_of,
)


def a_guest_is_merged_into_a_member(opener: Opener) -> None:
    """The guest's events are the member's too, once each, as of the merge and not before."""
    with closing(opener(CONFIG)) as log:
        log.append([event("g1", 1, member_id=None), event("g2", 4, member_id=None)], received_at=NOW)
        log.append([event("m", 3), event("g2", 4)], received_at=NOW)
        before, mark = log.read("m1", limit=K)
        assert log.merge("s1", "m1", received_at=NOW) == 1, "g2 is known already"
        rows, _ = log.read("m1", limit=K)
        assert ids_of(rows) == ["g1", "m", "g2"]
        assert {row["member_id"] for row in rows} == {"m1"}
        assert rows[0]["sequence"] > mark
        assert log.read("m1", limit=K, mark=mark)[0] == before, "a merge changed what was visible before it"
        assert log.merge("s1", "m1", received_at=NOW) == 0
        log.append([event("g3", 9, member_id=None)], received_at=NOW)
        assert log.merge("s1", "m1", received_at=NOW) == 1, "what came in between"
        assert ids_of(log.read("m1", limit=K)[0]) == ["g1", "m", "g2", "g3"]
        assert ids_of(log.read("guest:s1", limit=K)[0]) == ["g1", "g2", "g3"], "earlier answers were of the guest"
        assert log.merged("m1") == ["s1"]
        assert log.merge("nobody", "m1", received_at=NOW) == 0
        assert log.merge("s1", "m2", received_at=NOW, after_us=9) == 0
        assert log.merged("m2") == []
        assert log.merged("m1") == ["s1"]
        shipped = [(one.actor_id, one.event["event_id"]) for one in drain(log)]
        assert sorted(shipped) == sorted(
            [*(("guest:s1", f"g{n}") for n in (1, 2, 3)), *(("m1", name) for name in ("g1", "g2", "g3", "m"))]
        )


def concurrent_merges_and_events_lose_nothing(opener: Opener) -> None:
    """A guest's events that arrive while they are merged are the member's after one more merge."""
    with closing(opener(CONFIG)) as log:

        def write() -> None:
            for number in range(30):
                log.append([event(f"g{number:02d}", number, member_id=None)], received_at=NOW)

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            log.merge("s1", "m1", received_at=NOW)
            time.sleep(0.002)  # the writer gets its turn
        log.merge("s1", "m1", received_at=NOW)
        assert ids_of(log.read("m1", limit=100)[0]) == [f"g{number:02d}" for number in range(30)]


def deletion_leaves_nothing(opener: Opener) -> None:
    """Of the actor there are no events, impressions or merges, nor anything to ship; others stay, sequences go on."""
    with closing(opener(CONFIG)) as log:
        log.append([event("a", 1, member_id=None)], received_at=NOW)
        log.append([event("b", 2), event("i", 3, action="impression", title_id="t1")], received_at=NOW)
        log.append([event("x", 2, member_id="m2")], received_at=NOW)
        log.merge("s1", "m1", received_at=NOW)
        highest = max(row["sequence"] for row in log.read("m1", limit=K)[0])
        assert log.delete("m1", until_us=3, merged=["s1"]) == 3
        assert log.delete("m1", until_us=3) == 0
        assert log.read("m1", limit=K)[0] == []
        assert log.merged("m1") == []
        assert sorted((one.actor_id, one.event["event_id"]) for one in log.pending(10)) == [
            ("guest:s1", "a"),
            ("m2", "x"),
        ]
        (result,) = log.append([event("b", 2)], received_at=NOW)
        assert not result.duplicate
        assert result.sequence > highest


def what_came_after_a_deletion_began_stays(opener: Opener) -> None:
    """Events later than its time are read and shipped as if it had been quicker, and so are guests merged since."""
    with closing(opener(CONFIG)) as log:
        log.append([event("a", 1), event("b", 2)], received_at=NOW)
        log.append([event("g", 5, member_id=None)], received_at=NOW)
        log.append([event("c", 3), event("i", 3, action="impression", title_id="t1")], received_at=NOW)
        log.merge("s1", "m1", received_at=NOW)
        assert log.delete("m1", until_us=2, merged=["s0"]) >= 2
        assert ids_of(log.read("m1", limit=K)[0]) == ["c", "g"]
        assert log.merged("m1") == ["s1"]
        assert {one.event["event_id"] for one in log.pending(10)} == {"c", "i", "g"}


def what_came_before_a_deletion_can_go_alone(opener: Opener) -> None:
    """Acts up to the time go from reads, later ones stay, and the outbox still knows all."""
    with closing(opener(CONFIG)) as log:
        log.append([event("a", 1), event("b", 2), event("c", 3)], received_at=NOW)
        log.append([event("x", 1, member_id="m2")], received_at=NOW)
        assert log.delete_until("m1", 2) == 2
        assert log.delete_until("m1", 2) == 0
        assert ids_of(log.read("m1", limit=K)[0]) == ["c"]
        assert ids_of(log.read("m2", limit=K)[0]) == ["x"]
        assert {one.event["event_id"] for one in log.pending(10)} == {"a", "b", "c", "x"}
        log.shipped(log.pending(10))
        assert log.delete_until("m1", 3) == 1
        assert log.read("m1", limit=K)[0] == []


CLAUSES = (
    a_guest_is_merged_into_a_member,
    concurrent_merges_and_events_lose_nothing,
    deletion_leaves_nothing,
    what_came_after_a_deletion_began_stays,
    what_came_before_a_deletion_can_go_alone,
)
