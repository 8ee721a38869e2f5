"""The interface of diffusers on NumPy arrays: pipelines, their pieces, schedulers and ensembling."""
