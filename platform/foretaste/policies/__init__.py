"""Choices with their propensities. Numpy only."""
