"""Plain tables, in the long form or the wide one, whatever their columns are called."""

from __future__ import annotations

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Source

__all__ = ["IMPORTER"]

IMPORTER = Importer(Source.records, own=True)
"""CSV, Parquet or JSON; what is called as in a log need not be mapped."""
