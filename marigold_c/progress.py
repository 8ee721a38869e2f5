"""The progress bar of pipelines and commands: tqdm, as a widget in notebooks that have ipywidgets, else as text."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tqdm warns in every notebook without ipywidgets, where its text bar does as well
    from tqdm.auto import tqdm as tqdm
