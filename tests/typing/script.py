"""What a user writes in an editor; tests/test_typing.py compares what type checkers show of it. Not run."""

from typing import reveal_type

import marigold_c as mc

pipe = mc.load("checkpoint", task="depth")
reveal_type(pipe)
out = pipe("photo.jpg")
reveal_type(out)
reveal_type(out.prediction)
reveal_type(mc.load("checkpoint", task="normals")("photo.jpg"))
reveal_type(mc.load("checkpoint", task="intrinsics")("photo.jpg"))
reveal_type(mc.MarigoldDepthPipeline.from_pretrained("checkpoint"))
reveal_type(mc.read_image("photo.jpg"))
