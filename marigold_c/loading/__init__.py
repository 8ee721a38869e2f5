"""From a name to an open checkpoint: folders, the hub, packed files, their configurations and weights."""
