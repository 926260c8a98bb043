"""The session log, the decision log, and what became of decisions."""
