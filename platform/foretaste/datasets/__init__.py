"""Importers of real logs into the contracts."""

from foretaste.datasets.importers import IMPORTERS, Importer, import_dataset

__all__ = ["IMPORTERS", "Importer", "import_dataset"]
