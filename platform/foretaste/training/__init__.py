"""One Ray Train loop, and what is specific to each model."""
