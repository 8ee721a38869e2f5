"""Data sets for evaluation, read from the official archives or folders (docs/datasets.md).

open_dataset is the only way in. It knows nothing of pipelines or metrics: files in, arrays out.
"""

from __future__ import annotations

from .dataset import Dataset, SampleFiles, open_dataset
from .settings import Description, Protocol, Truth
from .table import DATASETS

__all__ = ["DATASETS", "Dataset", "Description", "Protocol", "SampleFiles", "Truth", "open_dataset"]
