"""Which metric sees which fault, on the user's own images: the metric passport."""

from lightning_synthqual.audit.faults import FAULTS, Fault
from lightning_synthqual.audit.passport import Audit, Cell
from lightning_synthqual.audit.run import audit

__all__ = ["FAULTS", "Audit", "Cell", "Fault", "audit"]
