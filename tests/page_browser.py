"""A browser on the page of `marigold app`: Debian's chromium without a window, driven by Selenium. Used by tests/app
and tools/make_page_image.py."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from page_server import PageServer
from selenium import webdriver
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 300  # seconds: only what hangs takes so long
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a graphics card
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
)


class Page:
    """A browser on the page of a server. requests: all that it asked for, but for data and blobs."""

    def __init__(self, server: PageServer) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(PATIENCE)
        self.server = server
        self.requests: set[str] = set()

    def open(self, query: str = "") -> None:
        self.driver.get(f"{self.server.address}/{query}")
        self.wait(lambda: self.all("#compute"))

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def wait(self, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        ignored = (Exception,)  # elements that the page draws anew meanwhile
        return WebDriverWait(self.driver, seconds, 0.2, ignored).until(lambda _driver: condition())

    def click(self, selector: str) -> None:
        element = self.wait(lambda: self.all(selector)[0])
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", element)

    def choose(self, path: Path) -> None:
        before = [one.get_attribute("src") for one in self.all("#photograph-shown img")]
        for button in self.all("#photograph button[aria-label='Clear'], #photograph button[aria-label='Remove file']"):
            button.click()
        self.wait(lambda: self.all("#photograph input[type=file]")[0]).send_keys(str(path))
        self.wait(lambda: [one.get_attribute("src") for one in self.all("#photograph-shown img")] not in (before, []))

    def set_number(self, label: str, value: int, panel: int = 0) -> None:
        """Of a slider, by the box beside it. panel: 0 for the page's settings, 1 for those of Compare."""
        box = self.wait(lambda: self.all(f"input[type=number][aria-label*='{label}']")[panel])
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(str(value), Keys.TAB)

    def tab(self, name: str) -> None:
        self.click_text("button[role=tab]", name)

    def click_text(self, selector: str, text: str) -> None:
        element = self.wait(lambda: next(one for one in self.all(selector) if one.text.strip() == text))
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", element)

    def shot(self, name: str) -> None:
        folder = os.environ.get("MARIGOLD_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def remember_requests(self) -> None:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                parameters = message["params"]
                self.requests.add(parameters.get("url") or parameters["request"]["url"])
