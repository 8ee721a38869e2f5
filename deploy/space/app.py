"""The page as a Space of Hugging Face, which looks for it at port 7860."""

import os
import sys

from marigold_c.commands.cli import main

CHECKPOINTS = os.environ.get("MARIGOLD_CHECKPOINTS", "").split()

if __name__ == "__main__":
    sys.exit(main(["app", "--host", "0.0.0.0", "--no-browser", *(f"--checkpoint={name}" for name in CHECKPOINTS)]))
