"""From raw events to sessions: read, validate, sessionize, label, split."""
