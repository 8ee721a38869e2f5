"""Training data: synthetic scenes (scenes/) and the preprocessing of published data sets.

frames, archive, hypersim, interiorverse, sintel, vkitti   published data sets
tone                                                       pictures of linear colours, for both
model                                                      checkpoints with random weights
"""
