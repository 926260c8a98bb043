"""Assertions and builders for tests of foretaste and of what is built on it."""
