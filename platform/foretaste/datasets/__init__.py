"""Importers of real logs into the contracts."""
