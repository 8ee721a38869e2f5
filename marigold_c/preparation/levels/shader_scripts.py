"""Shader scripts of Quake 3: which picture a surface shows, and whether it is sky, liquid, full of holes or not there.

Calls nothing of the package. Grammar: the Q3Radiant shader manual; only what changes a still picture is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

BLENDS: dict[str, str | None] = {
    "add": "add",
    "gl_one gl_one": "add",
    "filter": "filter",
    "blend": "blend",
    "gl_dst_color gl_zero": "filter",
    "gl_zero gl_src_color": "filter",
    "gl_src_alpha gl_one_minus_src_alpha": "blend",
    "gl_one gl_zero": None,
}
VERTEX_LIGHT = ("vertex", "exactvertex", "lightingdiffuse")
LONGEST_SCRIPT = 2**24


@dataclass
class Stage:
    """One layer: its picture ($lightmap and the like included), how it is laid over those below."""

    map: str | None = None
    blend: str | None = None
    alpha: bool = False
    environment: bool = False
    vertex_light: bool = False


@dataclass
class Shader:
    parameters: set[str] = field(default_factory=set)
    stages: list[Stage] = field(default_factory=list)
    editor: str | None = None
    sky: str | None = None


@dataclass
class Material:
    """image: a name for GameFiles.image. skip: nothing is drawn. sky_box: stem of the sky's six pictures."""

    image: str
    alpha_test: bool = False
    sky: bool = False
    skip: bool = False
    lit: bool = True
    liquid: bool = False
    sky_box: str | None = None


def parse_shaders(text: str) -> dict[str, Shader]:
    """All shaders of a script by their names in lower case. Damaged scripts give what can be read of them."""
    text = re.sub(r"//[^\n]*", "", text[:LONGEST_SCRIPT])
    shaders: dict[str, Shader] = {}
    depth, pending, current = 0, "", Shader()
    for line in text.split("\n"):
        for token in re.split(r"([{}])", line):
            words = token.lower().split()
            if not words:
                continue
            if words[0] == "{":
                depth += 1
                if depth == 1:
                    current = shaders.setdefault(pending, Shader())
                elif depth == 2:
                    current.stages.append(Stage())
            elif words[0] == "}":
                depth = max(0, depth - 1)
            elif depth == 0:
                pending = words[0]
            elif depth == 1:
                _of_shader(current, words)
            elif depth == 2:
                _of_stage(current.stages[-1], words)
    return shaders


def _of_shader(shader: Shader, words: list[str]) -> None:
    if len(words) < 2:
        return
    if words[0] == "surfaceparm":
        shader.parameters.add(words[1])
    elif words[0] == "qer_editorimage":
        shader.editor = words[1]
    elif words[0] in ("skyparms", "q3map_skyparms"):
        shader.sky = words[1]


def _of_stage(stage: Stage, words: list[str]) -> None:
    key, rest = words[0], words[1:]
    if key in ("map", "clampmap") and rest:
        stage.map = rest[0]
    elif key == "animmap" and len(rest) > 1:
        stage.map = rest[1]
    elif key == "blendfunc" and rest:
        function = " ".join(rest[:2])
        stage.blend = BLENDS.get(function, function)
    elif key == "alphafunc":
        stage.alpha = True
    elif key == "tcgen" and "environment" in rest:
        stage.environment = True
    elif key == "rgbgen" and rest and rest[0] in VERTEX_LIGHT:
        stage.vertex_light = True


def material_of(name: str, shader: Shader | None) -> Material:
    """What to draw where a surface names `name`. A script cannot refer to another one, so nothing can go in circles."""
    material = Material(image=name.lower())
    if shader is None:
        return material
    parameters = shader.parameters
    material.sky = "sky" in parameters
    material.sky_box = shader.sky
    material.liquid = bool(parameters & {"water", "lava", "slime"})
    material.skip = bool(parameters & {"nodraw", "fog", "hint", "skip"}) and not material.sky
    stages = [stage for stage in shader.stages if stage.map]
    names = [stage.map or "" for stage in stages]
    if stages:
        material.lit = "$lightmap" in names or any(stage.vertex_light for stage in stages)
        opaque_below = any(stage.blend is None for stage in stages)
        if stages[0].blend == "add" and not opaque_below:
            material.skip = True  # glow, beams and glass
        if not opaque_below and "trans" in parameters and not material.liquid:
            material.skip = not any(stage.alpha for stage in stages)
    painted = [stage for stage in stages if stage.map and not stage.map.startswith(("$", "*"))]
    opaque = [stage for stage in painted if stage.blend in (None, "filter", "blend") and not stage.environment]
    shown = opaque or painted
    if shown:
        # Of an environment below a blended texture, the texture is what is seen.
        first = shown[1] if "env" in (shown[0].map or "") and len(shown) > 1 else shown[0]
        material.image = first.map or material.image
        material.alpha_test = any(stage.alpha for stage in shown)
    elif shader.editor:
        material.image = shader.editor
    return material
