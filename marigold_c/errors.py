"""The exceptions of marigold_c that are not Python's own."""


class CheckpointError(ValueError):
    """A checkpoint file is damaged, hostile or does not fit its configuration."""


class DeviceError(RuntimeError):
    """A device is missing, unknown or failed."""
