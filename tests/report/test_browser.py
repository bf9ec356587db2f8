"""The page in a real browser, headless Chromium: `make browser`. Counted as `not run` where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftfield.report import quality
from driftfield.report.page import write_report

from .common import MLP, UNET, trained

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)
PHONE = 360  # pixels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """Where the page lies that is looked at: about pictures and about points."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("not run: there is no Chromium with its driver here")
    folder = tmp_path_factory.mktemp("browser")
    runs = [trained("digits", folder / "digits", UNET), trained("swiss-roll", folder / "swiss-roll", MLP)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "NFES", (5, 9))
        write_report(runs, out=folder / "report.html", n=16)
    return Path(folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser(address, tmp_path_factory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="not run: pip install 'driftfield[browser]'")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def opened(browser: Any, address: str, width: int, dark: bool) -> None:
    """The page at a width in CSS pixels, by a reader who prefers light or dark."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    phone = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width <= PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(address)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, 1280])
def test_the_page_in_a_browser(browser, address, width, dark):
    """Every picture loads, nothing is wider than the screen, no word in the console, not one request to anywhere."""
    browser.get_log("performance")
    opened(browser, address, width, dark)
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"
    assert browser.execute_script(broken) == []
    assert browser.execute_script("return document.images.length") >= 10
    assert browser.execute_script("return document.documentElement.clientWidth") <= width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width  # tables have their own box
    past = "return [...document.querySelectorAll('h1,h2,p,figure,img')].filter(e => {const r = \
e.getBoundingClientRect(); return r.right > innerWidth + 1 || r.left < -1}).length"
    assert browser.execute_script(past) == 0
    assert browser.get_log("browser") == []
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    asked = [s["request"]["url"] for s in sent if s["documentURL"] == address]  # not those of the browser's own pages
    assert [url for url in asked if not url.startswith("data:")] == [address]


def test_words_stand_out_from_the_ground(browser, address):
    """WCAG 2 asks 4.5:1 of words, in light and in dark."""
    ratio = """
const lum = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((a, v, i) => a + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = lum(getComputedStyle(document.body).backgroundColor);
return Math.min(...[...document.querySelectorAll('h1,h2,p:not(.note),td,th,a,figcaption,caption,summary')].map(e => {
  const words = lum(getComputedStyle(e).color);
  return (Math.max(words, ground) + 0.05) / (Math.min(words, ground) + 0.05);
}));"""
    for dark in (False, True):
        opened(browser, address, 1280, dark)
        assert browser.execute_script(ratio) >= 4.5
