"""What every session log has to keep: run each of `CLAUSES` on an opener of your log.

An opener is called with a configuration and gives a log; two calls open the same store, which is empty at first. It
has to be picklable, because some clauses write from another process.
"""

from __future__ import annotations

from collections.abc import Callable

from foretaste.testing import contract_session_log_members, contract_session_log_reads, contract_session_log_writers
from foretaste.testing.session_log_events import Opener

CLAUSES: dict[str, Callable[[Opener], None]] = {
    clause.__name__: clause
    for part in (contract_session_log_reads, contract_session_log_members, contract_session_log_writers)
    for clause in part.CLAUSES
}
