"""Training data: synthetic scenes (scenes.py) and the preprocessing of published data sets.

meshes, noise, textures, materials, sky                    what scenes are made of
furniture, walls, rooms, plants, houses, landscapes        scenes (description.Scene)
rendering, surfaces, decomposition, denoising, tone        a picture and its labels, by Mitsuba
layout, scenes                                             folders of samples
frames, archive, hypersim, interiorverse, sintel, vkitti   published data sets
command                                                    `marigold prepare`
"""
