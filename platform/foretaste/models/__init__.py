"""Encoders, the intent model, the ranker and the baselines. Torch and numpy only: no Ray, no Feast, no files."""
