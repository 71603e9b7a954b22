"""Chromium on the page of a running service."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
PACKAGES = ("torch", "transformers", "duckdb", "fastapi", "uvicorn", "orjson", "prometheus_client")
START_SECONDS, WAIT_SECONDS = 120, 20


@pytest.fixture(scope="session", autouse=True)
def only_when_asked() -> None:
    """Before any service is started."""
    if os.environ.get("HEDGEROW_TEST_SERVE") != "1":
        pytest.skip("slow: make test-serve")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # The driver's path is given, so that selenium does not look for one on the network.
    started = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield started
    started.quit()


class Service:
    """A running `hedgerow serve`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url, self.token = url, token

    def call(self, path: str, body: Any = None) -> Any:
        """Call the service as another client, and return the document."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())


def start(folder: Path, *words: object, token: str | None = None) -> Iterator[Service]:
    """Start a service on a free port, and stop it at the end."""
    for package in PACKAGES:
        pytest.importorskip(package)
    log = folder / "log"
    command = [sys.executable, "-m", "hedgerow", "serve", *map(str, words), "--port", "0", "--quiet"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield Service(_url(process, log), token)
    finally:
        process.terminate()
        process.wait(30)


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address of a service, once it is ready."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        text = log.read_text()
        if '"event": "ready"' in text:
            return re.findall(r"http://[\w.]+:\d+", text)[0]
        time.sleep(0.1)
    raise RuntimeError(f"the service did not start: {log.read_text()}")


RULES = """[sets]
recent = "year >= 2000"
french = "list_contains(countries, 'France')"
awarded = "oscars > 0"
"""
# Two of the first ten films for the prompt of the tests. Version 2 does not have them.
REMOVED = (41483, 104137)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the films, with two versions and three sets."""
    import hedgerow as hr
    from hedgerow.demo.films import DATA, load_catalog

    folder = tmp_path_factory.mktemp("films")
    hr.LiveIndex.create(folder / "films.live", hr.build_index(load_catalog())).remove(REMOVED)
    (folder / "rules.toml").write_text(RULES)
    # Version 1 can be asked for; it answers no request that names no version.
    options = ("--rules", folder / "rules.toml", "--allow-where", "--max-batch", 4, "--canary", "1e-9:1")
    yield from start(folder, DATA, folder / "films.live", *options)


MARKUP = "<img src=x onerror='window.injected = 1'><script>window.injected = 2</script>"
FIRST_ID = 2**60 + 1
TOKEN = "open-sesame-open-sesame"


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that needs a token, and whose items have markup as names, and ids that are no exact float."""
    import hedgerow as hr
    from hedgerow.demo.films import DATA, load_catalog

    folder, sids = tmp_path_factory.mktemp("guarded"), load_catalog().sids
    ids = [FIRST_ID + row for row in range(len(sids))]
    attributes = {"<b>name": [f"{MARKUP} {row}" for row in range(len(sids))], "note": ["&amp;"] * len(sids)}
    catalog = hr.Catalog(sids, codebook_sizes=256, item_ids=ids, attributes=attributes)
    hr.build_index(catalog).save(folder / "items.hedgerow")
    (folder / "token").write_text(f"{TOKEN}\n")
    yield from start(
        folder, DATA, folder / "items.hedgerow", "--token-file", folder / "token", "--max-batch", 4, token=TOKEN
    )


class Page:
    """The page in Chromium."""

    def __init__(self, driver: Any, service: Service) -> None:
        self.driver, self.service, self.mocks = driver, service, []
        self.expected_errors: list[str] = []

    def open(self, search: str = "") -> None:
        """Open the page anew."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.service.url}/ui{'#' * bool(search)}{search}")
        self.wait(
            lambda: self.all("#index li") or self.find("#message").is_displayed() or self.find("#token").is_displayed()
        )

    def search(self, search: str) -> None:
        """Open the page with a search in its address, and wait for the items and the beams."""
        self.open(search)
        self.searched()

    def searched(self) -> None:
        """Wait for the end of a search."""
        self.wait(lambda: self.all(".items tbody tr") and not self.all("[aria-busy]"))

    def find(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; it may use await and return a value."""
        wrapped = f"""const [done, ...given] = [...arguments].reverse();
            (async (...arguments) => {{ {script} }})(...given.reverse())
              .then(done, (error) => done(`failed: ${{error}}`));"""
        return self.driver.execute_async_script(wrapped, *arguments)

    def texts(self, css: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)", css)

    def wait(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"this did not become true in {WAIT_SECONDS} s; the page shows: {self.find('body').text}")

    def press(self, *names: str) -> None:
        """Press keys, wherever the focus is: "TAB", "ENTER", "ARROW_UP"."""
        from selenium.webdriver import ActionChains, Keys

        ActionChains(self.driver).send_keys(*(getattr(Keys, name) for name in names)).perform()

    def point_at(self, element: Any) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).move_to_element(element).perform()

    def focused(self) -> Any:
        return self.driver.switch_to.active_element

    def ids(self, pane: str = "a") -> list[str]:
        """The ids of the items in the table."""
        return self.texts(f".pane.{pane} .ranked .id")

    def before_load(self, script: str) -> None:
        """Run JavaScript before that of the page, at each load."""
        added = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        self.mocks.append(added["identifier"])

    def answer(self, path: str, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        """Answer requests of a path with a document, in place of the service."""
        options = json.dumps({"status": status, "headers": headers or {}})
        self.before_load(
            f"""{{
            const real = window.fetch;
            window.fetch = async (url, options) => new URL(url).pathname.endsWith({json.dumps(path)})
              ? new Response({json.dumps(json.dumps(document))}, {options})
              : real(url, options);
            }}"""
        )

    def emulate(self, *, dark: bool = False, width: int = 1400, height: int = 1100) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def close(self) -> None:
        """Check the logs, and leave no trace for the next test."""
        for identifier in self.mocks:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": identifier})
        self.driver.execute_script("sessionStorage.clear(); localStorage.clear();")
        self.driver.get("about:blank")
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        unexpected = [text for text in messages if not any(known in text for known in self.expected_errors)]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        elsewhere = [url for url in urls if not url.startswith((f"{self.service.url}/", "about:", "chrome:", "data:"))]
        assert urls, "no request was recorded"
        assert not elsewhere, f"requests to other origins: {elsewhere}"
        assert not unexpected, f"messages in the console: {unexpected}"


def opened(driver: Any, service: Service) -> Iterator[Page]:
    """A page of a service; its logs are checked at the end."""
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    page = Page(driver, service)
    page.emulate()
    yield page
    page.close()


@pytest.fixture
def page(driver: Any, films: Service) -> Iterator[Page]:
    yield from opened(driver, films)


@pytest.fixture
def guarded_page(driver: Any, guarded: Service) -> Iterator[Page]:
    for page in opened(driver, guarded):
        page.expected_errors = ["status of 401"]
        yield page
