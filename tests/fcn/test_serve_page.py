"""A person's path through the page of ``fcn serve``, in a real browser without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

for package in ("prometheus_client", "selenium", "starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed")
if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
    pytest.skip("there is no chromium with chromedriver (apt install chromium-driver)", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402

from fcn.data import read_labels  # noqa: E402
from fcn.data.files import read_image  # noqa: E402
from fcn.evaluation.overlays import save_overlay  # noqa: E402
from fcn.serving.limits import Limits  # noqa: E402
from tests.fcn.serving import Server, file_of, picture, predictor, serving, until  # noqa: E402

PIXELS = """
const canvas = arguments[0];
const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
return [canvas.height, canvas.width, Array.from(data)];
"""
HAND_OVER = """
const [kind, name, content] = arguments;
const transfer = new DataTransfer();
transfer.items.add(new File([Uint8Array.from(content)], name));
const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
                               : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
document.body.dispatchEvent(event);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving({"coarse": predictor(), "fine": predictor(1)}, Limits(upload_bytes=400_000)) as running:
        yield running


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


class Page:
    def __init__(self, chrome: webdriver.Chrome, server: Server, downloads: Path) -> None:
        self.chrome, self.downloads = chrome, downloads
        chrome.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        chrome.get(server.url)
        until(lambda: self.find("#networks").text)

    def find(self, selector: str) -> WebElement:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.chrome.find_elements(By.CSS_SELECTOR, selector)

    def said(self, text: str) -> None:
        until(lambda: text in self.find("#status").text + self.find("#error").text)

    def choose(self, path: Path) -> None:
        self.find("#file").send_keys(str(path))
        self.said(f"{path.name} is labeled")

    def pixels(self, panel: int = 0) -> np.ndarray:
        """uint8 ``[H, W, 4]`` of the canvas over the picture."""
        height, width, data = self.chrome.execute_script(PIXELS, self.all("canvas")[panel])
        return np.array(data, np.uint8).reshape(height, width, 4)

    def style(self, element: WebElement, name: str) -> str:
        return str(element.value_of_css_property(name))

    def downloaded(self, name: str) -> Path:
        path = self.downloads / name
        until(path.exists)
        return path


@pytest.fixture
def page(chrome: webdriver.Chrome, server: Server, tmp_path: Path) -> Iterator[Page]:
    opened = Page(chrome, server, tmp_path)
    yield opened
    wrong = [line for line in chrome.get_log("browser") if line["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
    assert [
        line for line in wrong if "/predict" not in line["message"]
    ] == []  # refusals, which tests ask for, are there


def test_from_a_file_to_labels_and_downloads(page: Page, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a photo.png"
    image = picture(3)
    path.write_bytes(file_of(image))
    labels, confidence = server.predictor.with_confidence([image])[0]
    palette = np.array(server.predictor.palette, np.uint8)
    assert not page.find("#result").is_displayed()
    page.choose(path)
    assert page.find("#result").is_displayed()
    np.testing.assert_array_equal(page.pixels()[:, :, :3], palette[labels])
    np.testing.assert_array_equal(page.pixels()[:, :, 3] > 0, palette[labels].any(2))  # black stays clear

    # the table: the largest class first, names as text
    counts = np.bincount(labels.ravel(), minlength=4)
    rows = [row.text for row in page.all("article:first-child tbody tr")]
    assert len(rows) == (counts > 0).sum()
    largest = int(counts.argmax())
    share, sure = 100 * counts[largest] / labels.size, 100 * confidence[labels == largest].mean()
    assert rows[0] == f"{server.predictor.classes[largest]}\n{share:.1f} % {sure:.0f} %"
    assert "<b>crème</b>" in page.find("article:first-child .told").text
    assert f"Mean confidence {100 * confidence.mean():.1f} %" in page.find(".facts").text

    # the slider, by keyboard
    cut, canvas = page.find(".cut"), page.find("canvas")
    assert page.style(canvas, "clip-path") == "inset(0px 0px 0px 50%)"
    cut.send_keys(Keys.ARROW_LEFT * 4)
    assert page.style(canvas, "clip-path") == "inset(0px 0px 0px 48%)"
    cut.send_keys(Keys.HOME)
    assert {page.style(each, "clip-path") for each in page.all("canvas")} == {"inset(0px 0px 0px 0%)"}  # both move

    # files
    page.find("a.labels").click()
    np.testing.assert_array_equal(read_labels(page.downloaded("a photo_labels_coarse.png"), 4), labels)
    page.find("a.confidence").click()
    gray = np.asarray(Image.open(page.downloaded("a photo_confidence_coarse.png")))
    np.testing.assert_array_equal(gray, np.rint(confidence * 255))
    page.find("button.overlay").click()
    save_overlay(tmp_path / "wanted.png", image, labels, server.predictor.classes, server.predictor.palette)
    found = read_image(page.downloaded("a photo_overlay_coarse.png"))
    np.testing.assert_array_equal(found, read_image(tmp_path / "wanted.png"))


def test_views_and_the_comparison_of_two(page: Page, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    image = picture(5)
    path.write_bytes(file_of(image))
    (coarse, confidence), fine = server.predictor.with_confidence([image])[0], predictor(1)(image)
    page.choose(path)
    assert f"agree on {100 * (coarse == fine).mean():.1f} %" in page.find("#agreement").text
    page.find("#views label:nth-of-type(4)").click()
    np.testing.assert_array_equal(page.pixels()[:, :, 3] > 0, coarse != fine)
    page.find("#views label:nth-of-type(3)").click()
    np.testing.assert_array_equal(page.pixels()[:, :, 0], np.rint(confidence * 255))
    assert not page.find("#strength").is_displayed()
    page.find("#views label:nth-of-type(2)").click()
    assert page.style(page.find("canvas"), "opacity") == "1"
    page.find("tbody button").click()  # the largest class alone
    largest = int(np.bincount(coarse.ravel()).argmax())
    np.testing.assert_array_equal(page.pixels()[:, :, 3] > 0, coarse == largest)
    np.testing.assert_array_equal(page.pixels(1)[:, :, 3] > 0, fine == largest)
    page.find("tbody button").click()
    assert (page.pixels()[:, :, 3] > 0).all()


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_pasted_and_dropped_pictures(page: Page, server: Server, kind: str) -> None:
    """One of a format that the browser cannot show: it comes back from the server."""
    image = picture(6)
    page.chrome.execute_script(HAND_OVER, kind, "scan.tif", list(file_of(image, "TIFF")))
    page.said("scan.tif is labeled")
    palette = np.array(server.predictor.palette, np.uint8)
    np.testing.assert_array_equal(page.pixels()[:, :, :3], palette[server.predictor(image)])
    assert page.chrome.execute_script("return document.querySelector('img').naturalWidth") == 80


def test_what_is_wrong_is_said_and_the_next_picture_works(page: Page, tmp_path: Path) -> None:
    broken, large, good = (tmp_path / name for name in ("broken.png", "large.bmp", "good.png"))
    broken.write_bytes(file_of(picture())[:-200])
    large.write_bytes(bytes(400_001))
    good.write_bytes(file_of(picture()))
    page.find("#file").send_keys(str(broken))
    page.said("broken.png: cannot read image")
    assert page.find("#error").is_displayed()
    assert not page.find("#result").is_displayed()
    page.find("#file").send_keys(str(large))
    page.said("large.bmp: 0.4 MB; at most 0.4 are taken")
    page.choose(good)
    assert not page.find("#error").is_displayed()


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_screens_and_dark_ones(page: Page, tmp_path: Path, dark: bool) -> None:
    def emulate(what: str, **options: Any) -> None:
        page.chrome.execute_cdp_cmd(f"Emulation.{what}", options)

    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    emulate("setEmulatedMedia", features=[feature])
    emulate("setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    try:
        path = tmp_path / "wide.png"
        path.write_bytes(file_of(picture(2, 40, 300)))
        page.choose(path)
        assert page.chrome.execute_script("return document.documentElement.scrollWidth") == 400
        paper = page.style(page.find("body"), "background-color")
        level = sum(map(int, paper.removeprefix("rgba(").removeprefix("rgb(").rstrip(")").split(",")[:3])) / 3
        assert level < 64 if dark else level > 192
    finally:
        emulate("setEmulatedMedia", features=[])
        emulate("clearDeviceMetricsOverride")


def test_nothing_comes_from_other_hosts(page: Page, server: Server) -> None:
    names = page.chrome.execute_script("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert len(names) >= 5
    assert [name for name in names if not name.startswith((server.url, "data:"))] == []
