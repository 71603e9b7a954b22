"""The page of the service: keyboard, themes, widths, errors and metrics, with Chromium."""

import time
import urllib.request

import pytest

PROMPT = "Recommend me a western"
HASH = "q=Recommend+me+a+western"
# Shift and the Tab key.
BACK_TAB = "\ue008\ue004"
DASH = "\N{EN DASH}"


def test_metrics_move(page):
    page.open()
    page.wait(lambda: page.texts("#metrics .value")[0] not in (DASH, ""))
    for _ in range(8):
        page.service.call("/v1/retrieve", {"prompt": PROMPT})
    page.wait(lambda: float(page.texts("#metrics .value")[0].removesuffix("/s")) > 0)
    tiles = dict(zip(page.texts("#metrics dt"), page.texts("#metrics .value"), strict=True))
    shown = {name.partition(":")[0]: value for name, value in tiles.items()}
    assert shown["p50"].endswith("s")
    assert float(shown["Batch size"]) >= 1
    assert shown["Version"] == str(page.service.call("/v1/index")["version"])
    assert page.run("return document.querySelector('.spark path').getTotalLength()") > 0


def test_metrics_stop_while_the_page_is_hidden(page):
    page.before_load("Object.defineProperty(document, 'hidden', { get: () => true });")
    page.open()
    time.sleep(2.5)
    assert set(page.texts("#metrics .value")) == {DASH}


def test_tab_order(page):
    page.search(HASH)
    assert page.focused().get_attribute("name") == "prompt"
    seen = []
    for _ in range(60):
        page.press("TAB")
        node = page.focused()
        if node.tag_name == "body":
            break
        seen.append(
            page.run(
                """const { name, id, className, textContent, role } = document.activeElement;
                return name || role || id || className || textContent"""
            )
        )
    sets = len(page.service.call("/v1/index")["sets"])
    ranks = len(page.all("button.rank"))
    expected = ["k", "primary", "compare", "Columns", "version", "beam", *["set"] * sets, "where", "exclude", "group"]
    expected += [*["rank"] * ranks, "treeitem", "The beam as tables", "item", "Why not?"]
    assert seen[: len(expected)] == expected
    # Backwards to the first element of the page: nothing holds the focus.
    page.find("[name=prompt]").click()
    for expected in ("theme", ""):
        page.focused().send_keys(BACK_TAB)
        assert page.focused().get_attribute("id") == expected
    assert page.focused().get_attribute("class") == "skip"


def test_the_skip_link_keeps_the_search(page):
    page.search(HASH)
    page.run("document.querySelector('.skip').focus()")
    page.press("ENTER")
    assert page.focused().get_attribute("id") == "results"
    assert page.driver.current_url.endswith(HASH)
    assert len(page.ids()) == 10


def test_dark_mode(page):
    background = "return getComputedStyle(document.body).backgroundColor"
    page.open()
    light = page.run(background)
    page.emulate(dark=True)
    dark = page.run(background)
    assert dark != light
    assert page.find("#theme").get_attribute("aria-pressed") == "true"
    page.find("#theme").click()
    assert page.run(background) == light
    page.open()
    assert page.run(background) == light
    page.emulate(dark=False)
    page.find("#theme").click()
    assert page.run(background) == dark


@pytest.mark.parametrize("width", [400, 760, 1100])
@pytest.mark.parametrize("compare", ["", "&compare=1"])
def test_narrow_pages_do_not_overflow(page, width, compare):
    page.emulate(width=width)
    page.search(HASH + compare)
    assert page.run("return document.documentElement.scrollWidth") == width


def test_errors_of_the_service_are_shown(page):
    page.expected_errors = ["status of 400", "status of 404"]
    page.open(f"{HASH}&where=yeer+%3E+2000")
    shown = page.wait(lambda: page.texts(".items .message.error p"))
    assert "yeer" in shown[0]
    assert "yeer" in page.find("#status").get_attribute("textContent")
    page.find("[name=where]").clear()
    page.find("[name=where]").send_keys("\n")
    page.searched()
    assert not page.all(".message.error:not([hidden])")
    # The error names its field, here of the second search.
    page.open(f"{HASH}&compare=1&b.version=77")
    assert "77" in page.wait(lambda: page.texts(".pane.b .items .message.error p"))[0]
    assert [node.get_attribute("name") for node in page.all("[aria-invalid]")] == ["version"]
    assert page.all(".side")[1].find_elements("css selector", "[aria-invalid]")
    assert len(page.ids("a")) == 10


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(429, "rate_limited", "Try again in 7 seconds"), (503, "unavailable", "not ready"), (504, "timeout", "too long")],
)
def test_a_busy_service(page, status, kind, words):
    document = {"error": {"message": "Told by the service.", "type": kind, "param": None, "code": kind}}
    page.answer("/v1/retrieve", status, document, {"retry-after": "7"})
    page.open(HASH)
    (shown,) = page.wait(lambda: page.texts(".items .message.warning p"))
    assert words in shown
    assert "Told by the service." in shown
    assert page.texts(".items .message button") == ["Try again"]


def test_an_empty_prompt_is_refused(page):
    page.open()
    page.find("button.primary").click()
    assert page.find("[name=prompt]").get_attribute("aria-invalid") == "true"
    assert page.find("#status").get_attribute("textContent") == "The prompt is empty."


def test_rules_that_leave_nothing(page):
    page.open(f"{HASH}&where=year+%3E+2100")
    page.wait(lambda: page.texts(".items .message p") and not page.all("[aria-busy]"))
    assert "No item fits" in page.texts(".items .message p")[0]
    assert not page.all(".items tbody tr")


def test_the_page_allows_only_its_own_files(page):
    with urllib.request.urlopen(f"{page.service.url}/ui") as response:
        policy, text = response.headers["content-security-policy"], response.read().decode()
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "style=" not in text
    assert "http" not in text
    page.open()
    page.run(
        """const script = document.createElement("script");
        script.textContent = "window.injected = 1";
        document.body.append(script);"""
    )
    assert page.run("return window.injected ?? null") is None
    page.expected_errors = ["Content Security Policy"]
