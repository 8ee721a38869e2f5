"""Readers of levels, tracks, models and scripts: what they hold, damage, cycles, hostile sizes, missing textures."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
from level_files import CORNERS, TRACK, quake3_level, ufo_tile, write_room
from PIL import Image

from marigold_c.preparation.levels.ac3d import read_ac3d_model, read_ac3d_world
from marigold_c.preparation.levels.catalogue import Catalogue
from marigold_c.preparation.levels.game_files import GameFiles, decode_texture
from marigold_c.preparation.levels.md2 import read_md2
from marigold_c.preparation.levels.quake3 import bezier_patch, read_quake3
from marigold_c.preparation.levels.sh3f import catalogue, read_furniture
from marigold_c.preparation.levels.shader_scripts import material_of, parse_shaders
from marigold_c.preparation.levels.ufo import read_ufo
from marigold_c.preparation.levels.world import LevelError


def png(colour=(200, 100, 50, 255), size=(4, 4)):
    file = io.BytesIO()
    Image.new("RGBA", size, colour).save(file, "PNG")
    return file.getvalue()


def game_with(tmp_path, files, archive=False):
    if archive:
        with zipfile.ZipFile(tmp_path / "pak0.pk3", "w") as out:
            for name, data in files.items():
                out.writestr(name, data)
    else:
        for name, data in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    return GameFiles(tmp_path)


@pytest.mark.parametrize("archive", [False, True])
def test_a_quake3_level(tmp_path, archive):
    files = {"maps/box.bsp": quake3_level(64), "Textures/WALL.png": png()}
    world = read_quake3(game_with(tmp_path, files, archive), "maps/box.bsp")
    assert world.name == "box" and world.missing == [] and world.baked
    corners = world.position[:24].reshape(-1, 3)
    assert {tuple(corner) for corner in corners} == {tuple(corner * 2) for corner in CORNERS}  # 64 units are 2 m
    np.testing.assert_allclose(world.seeds, [[0, 0, -24 / 32]])
    assert world.textures["textures/wall"][0, 0].tolist() == [200, 100, 50, 255]
    assert len(world.triangles()) == 12 + 2 * 25
    np.testing.assert_allclose(world.light[0], 128 / 255)


def test_a_patch_is_its_bezier_surface():
    """Against the polynomial by itself: corners are met, the middle is the weighted mean of all nine points."""
    control = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    points, triangles = bezier_patch(control, (3, 3), 4)
    grid = points.reshape(5, 5, 3)
    np.testing.assert_allclose(grid[[0, 0, 4, 4], [0, 4, 0, 4]], control[[0, 2, 6, 8]], atol=1e-6)
    weights = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]).ravel()
    np.testing.assert_allclose(grid[2, 2], weights @ control, atol=1e-6)
    assert len(triangles) == 32 and triangles.max() == 24


def test_a_ufo_tile(tmp_path):
    files = {"maps/city/one.bsp": ufo_tile(54), "textures/wall.png": png(size=(8, 4))}
    world = read_ufo(game_with(tmp_path, files), "maps/city/one.bsp")
    assert world.name == "city-one" and not world.baked and world.missing == []
    assert {tuple(corner) for corner in world.position} == {tuple(corner * 2) for corner in CORNERS}
    np.testing.assert_allclose(world.uv, world.position[:, :2] * 27 / [8, 4], atol=1e-5)  # texels of the picture's size
    np.testing.assert_allclose(world.seeds, [[0, 0, (24 - 54) / 27]])


@pytest.mark.parametrize("make,read", [(quake3_level, read_quake3), (ufo_tile, read_ufo)])
def test_damaged_levels_are_named(tmp_path, make, read):
    """Cut off anywhere, or with any number changed: a level or a LevelError that names the file, nothing else."""
    whole = make(64)
    game = game_with(tmp_path, {"maps/a.bsp": whole})
    rng = np.random.default_rng(0)
    refused = 0
    cases = [whole[:length] for length in range(0, len(whole), 97)]
    for _ in range(250):
        data = bytearray(whole)
        place = 4 * int(rng.integers(2, len(whole) // 4))
        data[place : place + 4] = struct.pack(
            "<I", int(rng.choice([0xFFFFFFFF, 0x7FFFFFFF, 0x7FC00000, rng.integers(2**31)]))
        )
        cases.append(bytes(data))
    for data in cases:
        (tmp_path / "maps/a.bsp").write_bytes(data)
        try:
            world = read(game, "maps/a.bsp")
        except LevelError as error:
            assert "maps/a.bsp" in str(error)
            refused += 1
        else:
            assert np.isfinite(world.position).all()
            assert max(int(batch.triangles.max()) for batch in world.batches) < len(world.position)
    assert refused > len(whole) // 97


def test_missing_textures_are_grey_and_named(tmp_path):
    world = read_quake3(game_with(tmp_path, {"maps/a.bsp": quake3_level()}), "maps/a.bsp")
    assert world.missing == ["textures/wall"]
    assert (world.textures["textures/wall"] == 128).all()


# Braces and semicolons stand for lines of their own.
SCRIPT = """
textures/door { { map textures/planks.tga } { map $lightmap; blendfunc filter } }
textures/sky { surfaceparm sky; skyparms env/blue - - }
textures/lake { surfaceparm water; surfaceparm trans; { map textures/waves.tga; blendfunc blend } }
textures/leaves { { map textures/leaf.tga; alphafunc ge128 } }
textures/glow { { map textures/flare.tga; blendfunc add } }
textures/unseen { surfaceparm nodraw }
"""


def test_shader_scripts():
    lines = SCRIPT.replace("{", "\n{\n").replace("}", "\n}\n").replace(";", "\n")
    shaders = parse_shaders("// a comment { with a brace\n" + lines)
    found = {name: material_of(name, shader) for name, shader in shaders.items()}
    assert found["textures/door"].image == "textures/planks.tga" and found["textures/door"].lit
    assert found["textures/sky"].sky and found["textures/sky"].sky_box == "env/blue"
    assert found["textures/lake"].liquid and not found["textures/lake"].skip
    assert found["textures/leaves"].alpha_test
    assert found["textures/glow"].skip and found["textures/unseen"].skip
    assert material_of("textures/other", None).image == "textures/other"


def test_scripts_in_circles_and_damaged_ones(tmp_path):
    """A shader whose picture is another shader's name, in a circle; open braces; lines without values."""
    circle = b"textures/wall\n{\n{\nmap textures/other\n}\n}\n"
    circle += b"textures/other\n{\nqer_editorimage textures/wall\n{\nmap textures/wall\n}\n}\n"
    damaged = b"{ { { textures/wall } map\n surfaceparm\n blendfunc }}}}}} {\n animmap\n rgbgen\n tcgen"
    files = {"maps/a.bsp": quake3_level(), "scripts/a.shader": circle, "scripts/b.shader": damaged}
    world = read_quake3(game_with(tmp_path, files), "maps/a.bsp")
    assert world.missing == ["textures/other"]
    for seed in range(50):
        noise = np.random.default_rng(seed).choice(list('{}\n mapx"/'), 400)
        parse_shaders("".join(noise))


def test_pictures_of_hostile_size():
    """A PNG whose header says 60000 x 60000 is no texture; large ones become smaller."""
    data = bytearray(png())
    data[16:24] = struct.pack(">2I", 60000, 60000)
    assert decode_texture(bytes(data), "RGBA", 512) is None
    assert decode_texture(b"no picture", "RGBA", 512) is None
    assert decode_texture(png(size=(1024, 256)), "RGBA", 512).shape == (128, 512, 4)


def test_a_track(tmp_path):
    (tmp_path / "t.acc").write_text(TRACK)
    (tmp_path / "road-asphalt.png").write_bytes(png())
    world = read_ac3d_world(tmp_path / "t.acc", [tmp_path])
    np.testing.assert_allclose(world.position.min(axis=0), [-9, -10, 0])
    np.testing.assert_allclose(world.position.max(axis=0), [11, 10, 0])
    np.testing.assert_allclose(np.abs(world.normal), np.broadcast_to([0, 0, 1], (6, 3)), atol=1e-6)
    assert len(world.seeds) == 2 and world.missing == []
    lines = TRACK.split("\n")
    for cut in range(1, len(lines)):
        (tmp_path / "t.acc").write_text("\n".join(lines[:cut]))
        with pytest.raises(LevelError, match=r"t\.acc") if cut < 20 else _nothing():
            read_ac3d_world(tmp_path / "t.acc", [tmp_path])
    (tmp_path / "t.acc").write_text(TRACK.replace("numvert 4", "numvert 400000000"))
    with pytest.raises(LevelError, match="400000000 rows in"):
        read_ac3d_model(tmp_path / "t.acc", [tmp_path])


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def md2():
    """A triangle with one frame, scaled by 2 and moved by 10; its skin is called a.png."""
    skins, corners = struct.pack("<64s", b"models/a.png"), struct.pack("<6h", 0, 0, 8, 0, 0, 8)
    triangle = struct.pack("<6H", 0, 1, 2, 0, 1, 2)
    frame = struct.pack("<6f16s", 2, 2, 2, 10, 10, 10, b"stand") + bytes([0, 0, 0, 0, 4, 0, 0, 0, 0, 4, 0, 0])
    at = [68, 68 + 64, 68 + 76, 68 + 88]
    head = (8, 8, 8, len(frame), 1, 3, 3, 1, 0, 1, *at, 0, at[3] + len(frame))
    return b"IDP2" + struct.pack("<16i", *head) + skins + corners + triangle + frame


def test_a_quake2_model(tmp_path):
    game = game_with(tmp_path, {"models/a.md2": md2(), "models/a.png": png()})
    part = read_md2(game, "models/a.md2", scale=0.5).parts[0]
    np.testing.assert_allclose(part.position, [[5, 9, 5], [9, 5, 5], [5, 5, 5]])
    np.testing.assert_allclose(part.uv, [[0, 1], [1, 0], [0, 0]])
    assert part.texture[0, 0].tolist() == [200, 100, 50, 255]
    whole = md2()
    for place in range(4, len(whole) - 4, 4):
        for value in (0x7FFFFFFF, 0xFFFFFFFF):
            data = whole[:place] + struct.pack("<I", value) + whole[place + 4 :]
            (tmp_path / "models/a.md2").write_bytes(data)
            try:
                read_md2(game, "models/a.md2")
            except LevelError as error:
                assert "models/a.md2" in str(error)


def test_furniture(tmp_path, monkeypatch):
    """A catalogue's model becomes as large as the catalogue says; doors are left out; damaged ones are named."""
    write_room(tmp_path / "a.obj")
    rows = "id#1=chair\nmodel#1=/a.obj\nwidth#1=50\ndepth#1=40\nheight#1=90\nmodel#2=/d.obj\ndoorOrWindow#2=true\n"
    rows += "id#3=bad\nmodel#3=/none.obj\nwidth#3=1\ndepth#3=1\nheight#3=1\n"
    with zipfile.ZipFile(tmp_path / "f.sh3f", "w") as out:
        out.write(tmp_path / "a.obj", "a.obj")
        out.writestr("PluginFurnitureCatalog.properties", rows)
    found = catalogue(tmp_path / "f.sh3f")
    assert [row["id"] for row in found] == ["chair", "bad"]
    low, high = read_furniture(tmp_path / "f.sh3f", found[0]).standing().box()
    np.testing.assert_allclose(np.concatenate([low, high]), [-0.25, -0.2, 0, 0.25, 0.2, 0.9], atol=1e-6)
    models = Catalogue([tmp_path])
    assert len(models.some(20, np.random.default_rng(0))) > 4
    assert any("none.obj" in reason for reason in models.damaged.values())
    kept = [model.name for model in models.some(20, np.random.default_rng(0))]
    assert models.held_bytes > 1
    monkeypatch.setattr("marigold_c.preparation.levels.catalogue.KEPT_BYTES", 1)
    assert [model.name for model in models.some(20, np.random.default_rng(0))] == kept
    assert models.held_bytes <= 1
    with pytest.raises(LevelError, match="no furniture"):
        (tmp_path / "empty").mkdir()
        Catalogue([tmp_path / "empty"])


def test_an_archive_that_is_none(tmp_path):
    (tmp_path / "pak.pk3").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(LevelError, match=r"pak\.pk3: not an archive"):
        GameFiles(tmp_path)
