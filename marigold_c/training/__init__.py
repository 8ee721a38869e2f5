"""Fine-tuning (docs/training.md): configurations, data, checkpoints and the loop around the trainer in C.

`marigold train config.yaml`, or from a script:

    from marigold_c.training.config import load_config
    from marigold_c.training.run import RunOptions, train
    train(load_config("config.yaml"), RunOptions(folder=Path("output/run")))
"""
