"""The page in a real browser: Debian's chromium without a window, driven by Selenium.

Screenshots are left in the folder that MARIGOLD_SCREENSHOTS names, if it does, to be looked at.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from page_server import PageServer
from PIL import Image

from marigold_c.commands import cli

pytest.importorskip("gradio")
pytest.importorskip("selenium")
if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

from page_browser import PATIENCE, Page
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "marigold_c/app/examples/coffee.jpg"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    running = PageServer(tmp_path_factory.mktemp("served"))
    yield running
    running.stop()
    assert not list(running.temporary.iterdir())


@pytest.fixture(scope="module")
def browser(server: PageServer) -> Iterator[Page]:
    page = Page(server)
    yield page
    page.driver.quit()


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The page, newly opened; afterwards, nothing has been asked of anybody but its server."""
    browser.open()
    yield browser
    browser.remember_requests()
    elsewhere = [url for url in browser.requests if not url.startswith((browser.server.address, "data:", "blob:"))]
    assert not elsewhere and len(browser.requests) > 20


def test_a_photograph_becomes_a_map_with_values_and_the_files_of_the_command(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.choose(PHOTO)
    page.click("#compute")
    figure = page.wait(lambda: page.all("#maps figure")[0])
    page.wait(lambda: page.all("#files a"))

    slider = figure.find_element(By.CSS_SELECTOR, "input[type=range]")
    slider.send_keys(*[Keys.ARROW_LEFT] * 20)
    assert "--at: 40%" in figure.get_attribute("style")
    picture = figure.find_element(By.CSS_SELECTOR, "img")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    ActionChains(page.driver).drag_and_drop_by_offset(picture, 150, 0).perform()
    boundary = float(figure.get_attribute("style").partition("--at:")[2].partition("%")[0])
    assert boundary == pytest.approx(50 + 100 * 150 / picture.size["width"], abs=1)

    monkeypatch.chdir(tmp_path)
    Path("coffee.jpg").write_bytes(PHOTO.read_bytes())
    line = next(
        one.get_attribute("value") for one in page.all("textarea") if "marigold depth" in one.get_attribute("value")
    )
    assert cli.main([*line.split()[1:], "--quiet"]) == 0
    theirs = {path.name: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    links = {one.get_attribute("href") for one in page.all("#files a")}
    assert {link.rpartition("/")[2]: urlopen(link).read() for link in links} == theirs

    depth = np.load(io.BytesIO(theirs["coffee_depth.npy"]))
    for across, down in ((-0.3, 0.2), (0.4, -0.4)):
        width, height = picture.size["width"], picture.size["height"]
        ActionChains(page.driver).move_to_element_with_offset(
            picture, int(across * width), int(down * height)
        ).perform()
        words = figure.find_element(By.TAG_NAME, "output").text.replace(",", " ").split()
        value, column, row = float(words[1]), int(words[4]), int(words[6])
        assert value == pytest.approx(depth[row, column], abs=1e-4)
        assert column == pytest.approx((0.5 + across) * depth.shape[1], abs=2)
        assert row == pytest.approx((0.5 + down) * depth.shape[0], abs=2)
    page.shot("image")


def colours(canvas: Any) -> np.ndarray:
    """What is seen of an element, without its border."""
    pixels = np.asarray(Image.open(io.BytesIO(canvas.screenshot_as_png)).convert("RGB")).astype(int)
    return pixels[40:-40, 40:-40]


def covered(canvas: Any) -> float:
    """The part of it that is not as its corner."""
    pixels = colours(canvas)
    return float((np.abs(pixels - pixels[0, 0]).max(axis=2) > 20).mean())


@pytest.mark.parametrize("shape", ["mesh", "points"])
def test_the_scene_is_not_empty_and_turns(shape: str, page: Page) -> None:
    page.click_text("button", "Example: cat")
    page.wait(lambda: page.all("#photograph-shown img"))
    page.tab("3-D")
    page.click_text("label", shape)
    page.click("#make-scene")
    canvas = page.wait(lambda: page.all("#scene canvas")[0])
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)

    page.wait(lambda: covered(canvas) > 0.05)
    page.shot(f"scene-{shape}")
    before = colours(canvas)
    assert before.std(axis=(0, 1)).min() > 10
    ActionChains(page.driver).drag_and_drop_by_offset(canvas, 120, 30).perform()
    page.wait(lambda: (np.abs(colours(canvas) - before).max(axis=2) > 20).mean() > 0.02)


def test_cancel_ends_the_engine_and_a_second_visitor_waits_in_line(page: Page) -> None:
    page.choose(PHOTO)
    page.set_number("Steps", 50)
    page.set_number("Members", 20)
    page.click("#compute")
    page.wait(lambda: page.server.health()["busy"])
    page.wait(lambda: "step" in page.all("#maps")[0].text and "left" in page.all("#maps")[0].text)
    page.shot("progress")

    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open()
    page.choose(PHOTO)
    page.click("#compute")
    page.wait(lambda: "queue" in page.all("#maps")[0].text)
    second = page.driver.current_window_handle

    page.driver.switch_to.window(first)
    page.click("#cancel")
    page.driver.switch_to.window(second)
    page.wait(lambda: page.all("#maps figure"))
    page.server.wait_until_idle(60)
    page.driver.close()
    page.driver.switch_to.window(first)
    page.set_number("Steps", 1)
    page.set_number("Members", 1)
    page.click("#compute")
    page.wait(lambda: page.all("#maps figure"))


def test_who_leaves_ends_what_runs_and_leaves_nothing(page: Page) -> None:
    page.choose(PHOTO)
    page.set_number("Steps", 1)
    page.click("#compute")
    page.wait(lambda: page.all("#maps figure"))
    assert page.server.files()
    page.set_number("Steps", 50)
    page.set_number("Members", 20)
    page.click("#compute")
    page.wait(lambda: page.server.health()["busy"])
    page.driver.get("about:blank")
    page.wait(lambda: not page.server.files())
    page.server.wait_until_idle(60)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("<b>x.png", b"no image at all", "_b_x.png: cannot be read as an image"),
        ("photo.jpg", PHOTO.read_bytes()[:9000], "photo.jpg: cannot be read as an image"),
        ("bomb.pgm", b"P5 100000 100000 255 ", "bomb.pgm: the image is too large: 100000 x 100000"),
    ],
)
def test_hostile_uploads_are_refused_in_words(name: str, content: bytes, said: str, page: Page, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    page.wait(lambda: page.all("#photograph input[type=file]")[0]).send_keys(str(tmp_path / name))
    page.wait(lambda: any(said in one.text for one in page.all("[data-testid='toast-body']")))
    assert not page.all("#photograph-shown img")
    page.shot("refused")


def _serious(page: Page) -> list[str]:
    from axe_selenium_python import Axe

    page.driver.set_script_timeout(PATIENCE)
    axe = Axe(page.driver)
    axe.inject()
    # A rule of axe 3 that axe 4 has no more: Gradio gives every box of a page one name.
    found = axe.run(options='{"rules": {"checkboxgroup": {"enabled": false}}}')["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html'][:150]}" for one in serious for node in one["nodes"]]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_it_is_accessible_and_fits_a_phone(theme: str, width: int, page: Page) -> None:
    pytest.importorskip("axe_selenium_python")
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        page.open(f"?__theme={theme}")
        page.click_text("button", "Example: cat")
        page.wait(lambda: page.all("#photograph-shown img"))
        page.click("#compute")
        page.wait(lambda: page.all("#maps figure"))
        page.shot(f"{theme}-{width}")
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert _serious(page) == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_tab_is_accessible(theme: str, page: Page) -> None:
    pytest.importorskip("axe_selenium_python")
    page.open(f"?__theme={theme}")
    names = [tab.text.strip() for tab in page.all("button[role=tab]") if tab.text.strip()]
    assert {"Image", "3-D", "Compare", "Measure", "Relief"} <= set(names)
    for name in names:
        page.tab(name)
        page.wait(lambda name=name: page.all("button[role=tab][aria-selected=true]")[0].text.strip() == name)
        assert _serious(page) == [], name


def _tab_to(page: Page, script: str) -> None:
    """Presses the tabulator until what has the focus, `e`, fulfils a condition."""
    for _ in range(100):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        if page.driver.execute_script(f"const e = document.activeElement; return {script}"):
            return
    pytest.fail(f"the tabulator does not reach {script}")


def test_a_keyboard_is_enough(page: Page) -> None:
    _tab_to(page, "e.textContent.trim() == 'Example: cat'")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.wait(lambda: page.all("#photograph-shown img"))
    _tab_to(page, "e.matches('#compute')")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    figure = page.wait(lambda: page.all("#maps figure")[0])
    _tab_to(page, "e.matches('#maps input[type=range]')")
    ActionChains(page.driver).send_keys(*[Keys.ARROW_RIGHT] * 20).perform()
    assert "--at: 60%" in figure.get_attribute("style")


def test_the_page_goes_on_after_its_server_was_killed(tmp_path: Path) -> None:
    first = PageServer(tmp_path)
    page = Page(first)
    try:
        page.open()
        page.choose(PHOTO)
        first.kill()
        page.server = PageServer(tmp_path, port=first.port)
        assert not page.server.files()  # what the killed one left is gone

        def computed() -> list[Any]:
            """Tried again where the page has loaded itself anew between two of the steps."""
            page.click_text("button", "Example: cat")
            page.wait(lambda: "cat.jpg" in page.all("#photograph-shown")[0].text, PATIENCE / 4)
            page.click("#compute")
            return list(page.wait(lambda: page.all("#maps figure"), PATIENCE / 4))

        page.wait(computed)
        assert page.server.stop() == 0
        assert not list(tmp_path.iterdir())
    finally:
        page.driver.quit()
        page.server.kill()


def test_every_tab_gives_what_it_promises(page: Page) -> None:
    page.click_text("button", "Example: cat")
    page.wait(lambda: page.all("#photograph-shown img"))
    page.tab("Compare")
    page.click("#compare")
    page.wait(lambda: "they differ by 0.0000 on average, 0.0000 at most" in page.all("#compared summary")[0].text)
    page.set_number("Steps", 3, panel=1)
    page.click("#compare")
    page.wait(lambda: "0.0000 at most" not in page.all("#compared summary")[0].text)
    assert "they differ by" in page.all("#compared summary")[0].text
    page.shot("compare")
    page.tab("Measure")
    page.click("#show-photograph")
    picture = page.wait(lambda: page.all("#clicked img")[0])
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    ActionChains(page.driver).move_to_element(picture).click().perform()
    box = page.all("#points textarea")[0]
    page.wait(lambda: "," in box.get_attribute("value"))
    column, row = (int(word) for word in box.get_attribute("value").replace(",", " ").split())
    assert abs(column - 225) < 4 and abs(row - 150) < 4
    box.send_keys(Keys.END, "2.5\n10, 20", Keys.TAB)
    page.click("#measure")
    page.wait(lambda: f"{column}, {row} 2.5 m 2.500 m" in page.all("#measured")[0].text)
    page.shot("measure")
    page.tab("Relief")
    page.click("#make-relief")
    relief = page.wait(lambda: page.all("#relief canvas")[0])
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", relief)
    page.wait(lambda: covered(relief) > 0.05)
    page.shot("relief")


def test_a_video_is_converted(page: Page, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 96, 64
        for shade in (0, 80, 160):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 3), shade, np.uint8), format="rgb24")))
        out.mux(stream.encode())
    page.tab("Video")
    page.wait(lambda: page.all("#video input[type=file]")[0]).send_keys(str(clip))
    page.wait(lambda: "clip.mp4" in page.all("#video-shown")[0].text)
    page.click("#convert")
    source = page.wait(lambda: page.all("#converted video")[0].get_attribute("src"))
    with av.open(io.BytesIO(urlopen(source).read())) as made:
        assert [frame.width for frame in made.decode(video=0)] == [192] * 3
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n/etc/passwd\n")
    page.open()
    page.tab("Video")
    page.wait(lambda: page.all("#video input[type=file]")[0]).send_keys(str(tmp_path / "list.m3u8"))
    page.wait(lambda: any("not a video that is taken" in one.text for one in page.all("[data-testid='toast-body']")))
