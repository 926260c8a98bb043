"""Reward programs over observed and predicted feedback."""
