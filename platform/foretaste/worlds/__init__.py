"""A seeded synthetic streaming service whose truth is known."""
