"""The pictures of one World: furnished, lit, seen from many places. Calls the other files of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .furnishing import place_before
from .pictures import Picture, photograph
from .rasteriser import Rasteriser, View
from .recolouring import recoloured
from .sunlight import Sun, light
from .viewpoints import Caster, Taste, Walker, view_of, why_not
from .world import LevelError, Model, Placed, World, with_models


@dataclass(frozen=True)
class Shot:
    picture: Picture
    view: View


def furnish(
    world: World, views: Sequence[View], models: Sequence[Model], caster: Caster, rng: np.random.Generator, most: int
) -> tuple[World, list[Placed]]:
    """The world with things in front of its views, and those things."""
    things: list[Placed] = []
    for view in views:
        for _ in range(int(rng.integers(0, 4))):
            thing = place_before(view, models, caster, rng) if len(things) < most else None
            if thing is not None:
                things.append(thing)
    grid = world.light_grid
    return with_models(world, things, None if grid is None else grid.light), things


def shots(
    world: World,
    models: Sequence[Model],
    count: int,
    rasteriser: Rasteriser,
    rng: np.random.Generator,
    taste: Taste | None = None,
    most_things: int = 60,
    relight: float = 0.2,
    recolour: float = 0.0,
) -> Iterator[Shot]:
    """At most `count` pictures: half of them from where one can walk, half of things that were put there.

    relight: part of the pictures of a level with baked light that get new light. recolour: part of all pictures whose
    surfaces get other colours. LevelError: no place to stand."""
    taste = taste or Taste()
    if not len(world.seeds):
        raise LevelError(f"{world.name}: nowhere to stand")
    bare = Caster(world)
    walker = Walker(world, bare, taste, rng)
    views = walker.views(count if not models else count // 2 + 1)
    if not views:
        raise LevelError(f"{world.name}: no view that shows anything: {walker.refusals.counts}")
    if models:
        world, things = furnish(world, views, models, bare, rng, most_things)
        caster = Caster(world)
        views = [view for view in views if why_not(caster, view, taste, walker.closed) is None]
        for _ in range(4 * count if things else 0):
            if len(views) >= count:
                break
            thing = things[rng.integers(len(things))]
            low, high = thing.model.box()
            size = float(np.linalg.norm(thing.matrix[:, 0]) * (high - low).max())
            view = view_of(thing.offset, size, caster, taste, rng)
            if view is not None and why_not(caster, view, taste, walker.closed) is None:
                views.append(view)
    rasteriser.load(world)
    shadows = Caster(world, alpha=False)
    suns = [Sun.random(rng) for _ in range(max(1, len(views) // 8))]
    for view in views:
        drawing = rasteriser.draw(view)
        if not world.baked or rng.uniform() < relight:
            drawing = light(drawing, view, shadows, suns[rng.integers(len(suns))], rng)
        if recolour and rng.uniform() < recolour:
            drawing = replace(drawing, albedo=recoloured(drawing.albedo, rng))
        picture = photograph(drawing, view, world, rng)
        if picture is not None:
            yield Shot(picture, view)
