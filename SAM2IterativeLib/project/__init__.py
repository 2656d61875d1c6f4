"""The project folder: the only home of a project's state, shared by terminal, worker and Slicer module.

```
project.toml           settings, made to be read and edited by a person
plan.toml              what the software decided for these data
journal.sqlite         what happened: cases, units of work, rounds, decisions, events
cases/<id>/            image.nrrd, label.nrrd: verified copies of what came in; reviews/: what people decided
rounds/<n>/<id>/       artefacts of a round
models/                trained weights
log.txt  report.html
```
"""

from __future__ import annotations

from .artefacts import load_arrays, load_probabilities, save_arrays, save_probabilities
from .case import ROLES, Case, Role, case_id_of, opaque_case_id
from .folder import Project
from .journal import Event, Journal, Unit
from .labels import label_of, labels_of_names

__all__ = [
    "ROLES",
    "Case",
    "Event",
    "Journal",
    "Project",
    "Role",
    "Unit",
    "case_id_of",
    "label_of",
    "labels_of_names",
    "load_arrays",
    "load_probabilities",
    "opaque_case_id",
    "save_arrays",
    "save_probabilities",
]
