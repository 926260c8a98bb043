"""The values that the stages exchange: tables, definitions and configuration. Imports nothing of foretaste."""
