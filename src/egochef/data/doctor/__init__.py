"""Finds every fault of an EK-100 data folder at once, before a run meets them one by one.

In: a data folder. Out: a `Diagnosis` with its `Fault`s. No fault ends the search. `tables` reads the annotations,
`places` finds the videos, `files` looks into one, `damage` decodes it, `diagnosis` does it all.
"""

from egochef.data.doctor.diagnosis import Diagnosis, diagnose
from egochef.data.doctor.faults import Fault
from egochef.data.doctor.tables import check_annotations

__all__ = ["Diagnosis", "Fault", "check_annotations", "diagnose"]
