"""Evaluation on published data sets: predictions for a whole set (`marigold infer`), their metrics (`marigold eval`).

presets.py has the protocols as a table, inference.py and scoring.py the work on one sample, engines.py and
ray_engine.py hand samples to workers, results.py, summary.py and report.py put scores together.
"""
