"""What a user writes in an editor; tests/test_typing.py compares what type checkers show of it. Not run."""

from typing import reveal_type

import marigold_c as mc

pipe = mc.load("checkpoint", task="depth")
reveal_type(pipe)
out = pipe("photo.jpg", ensemble_size=5, output_uncertainty=True)
reveal_type(out)
reveal_type(out.prediction)
reveal_type(out.uncertainty)
reveal_type(mc.load("checkpoint", task="normals")("photo.jpg"))
reveal_type(mc.load("checkpoint", task="intrinsics")("photo.jpg"))
reveal_type(mc.MarigoldDepthPipeline.from_pretrained("checkpoint").to("cuda"))
unknown = mc.load("checkpoint")
reveal_type(unknown)
reveal_type(unknown("photo.jpg").prediction)
if isinstance(unknown, mc.MarigoldNormalsPipeline):
    reveal_type(unknown("photo.jpg"))
reveal_type(pipe("photo.jpg", output_type="pt"))
reveal_type(mc.read_image("photo.jpg"))
