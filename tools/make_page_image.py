"""Writes docs/images/page.webp, the screenshot of `marigold app` in README.md: a photograph over its depth.

Run from anywhere where `make test-app` runs: python tools/make_page_image.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium.webdriver import ActionChains

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from page_browser import Page  # noqa: E402
from page_server import PageServer  # noqa: E402

PHOTO = ROOT / "marigold_c" / "app" / "examples" / "coffee.jpg"
OUTPUT = ROOT / "docs" / "images" / "page.webp"
SIZE = 860, 775  # of the window, in pixels of the page: from the settings to the value


def picture_of(page: Page) -> bytes:
    """What the window shows when depth is there, scrolled to the end of the map; PNG."""
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False},
    )
    page.open("?__theme=light")
    page.choose(PHOTO)
    page.click("button.label-wrap")  # folds the settings
    page.click("#compute")
    figure = page.wait(lambda: page.all("#maps figure")[0])
    page.wait(lambda: page.all("#files a"))
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'end'})", figure)
    shown = figure.find_element("css selector", "img")
    ActionChains(page.driver).move_to_element_with_offset(shown, 120, 60).perform()  # its value stands below
    return bytes(page.driver.get_screenshot_as_png())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = PageServer(Path(folder))
        page = Page(server)
        try:
            picture = Image.open(io.BytesIO(picture_of(page))).convert("RGB")
        finally:
            page.driver.quit()
            server.stop()
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    picture.save(OUTPUT, quality=80, method=6)
    print(OUTPUT, OUTPUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
