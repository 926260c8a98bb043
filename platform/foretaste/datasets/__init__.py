"""Importers of real logs into the contracts."""

from foretaste.datasets.importers import IMPORTERS, Importer, caution, import_dataset, ties_seed
from foretaste.datasets.ties import shuffle_ties

__all__ = ["IMPORTERS", "Importer", "caution", "import_dataset", "shuffle_ties", "ties_seed"]
