"""Views of game levels and 3-D scenes with exact depth, normals, albedo and shading.

world, lumps, shader_scripts, game_files               what worlds are made of, and the files of games
quake3, ufo, ac3d, meshes                              readers of worlds
md2, md3, wavefront, sh3f, catalogue                   readers of models to put into them
rasteriser, viewpoints, furnishing, sunlight, pictures cameras, things, light and photographs
shots, generator                                       views of a world; folders of them
"""
