"""Synthetic scenes with labels.

meshes, noise, textures, materials, sky                what scenes are made of
furniture, walls, rooms, plants, houses, landscapes    scenes (description.Scene)
rendering, surfaces, decomposition, denoising          a picture and its labels, by Mitsuba
layout, generator                                      folders of samples
"""
