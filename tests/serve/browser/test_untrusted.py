"""The page with a token, and with text that nobody checked: it is shown as text."""

import pytest

MARKUP = "<img src=x onerror='window.injected = 1'><script>window.injected = 2</script>"
PROMPT = "Recommend me a western"
TOKEN = "open-sesame-open-sesame"
HASH = "q=Recommend+me+a+western"


def give(page, token):
    page.wait(lambda: page.find("#token").is_displayed())
    page.find("#token input").send_keys(token)
    page.find("#token .primary").click()


def nothing_injected(page):
    assert page.run("return window.injected ?? null") is None
    assert not page.all("main img, main script, main b b")


def test_the_token_is_asked_for_and_kept_in_the_tab(guarded_page):
    page = guarded_page
    page.open()
    assert page.focused().get_attribute("type") == "password"
    give(page, "wrong")
    page.wait(lambda: "refused" in page.find("#token-message").text)
    give(page, TOKEN)
    page.wait(lambda: page.all("#index li"))
    assert not page.find("#token").is_displayed()
    page.search(HASH)
    assert not page.find("#token").is_displayed()
    assert page.run("return [localStorage.length, sessionStorage.getItem('hedgerow-token')]") == [0, TOKEN]
    assert TOKEN not in page.driver.current_url


def test_a_search_goes_on_after_the_token(guarded_page):
    page = guarded_page
    page.open(HASH)
    give(page, TOKEN)
    page.searched()
    assert len(page.ids()) == 10
    # This service has no versions, no sets, and allows no SQL.
    assert not [name for name in ("version", "sets", "where") if page.find(f".side .{name}").is_displayed()]


def test_without_the_token_the_page_says_so(guarded_page):
    page = guarded_page
    page.open()
    page.press("ESCAPE")
    page.wait(lambda: page.find("#message").is_displayed())
    assert not page.find("#token").is_displayed()
    page.find("#message button").click()
    give(page, TOKEN)
    page.wait(lambda: page.all("#index li"))
    assert not page.find("#message").is_displayed()


@pytest.fixture
def shown(guarded_page):
    """The page with a search, after the token."""
    guarded_page.open(HASH)
    give(guarded_page, TOKEN)
    guarded_page.searched()
    return guarded_page


def test_names_of_items_are_text(shown):
    items = shown.service.call("/v1/retrieve", {"prompt": PROMPT})["items"]
    names = [item["attributes"]["<b>name"] for item in items]
    assert all(name.startswith(MARKUP) for name in names)
    assert shown.texts(".items .name") == names
    assert shown.texts(".items tbody .text") == ["&amp;"] * 10
    assert "<b>name" in shown.find("#columns .sheet").get_attribute("textContent")
    labels = shown.run("return [...document.querySelectorAll('.labels text')].map((one) => one.textContent)")
    assert all("<img" in label for label in labels)
    assert len(labels) == len({tuple(item["sid"]) for item in items})
    shown.point_at(shown.all(".labels text")[0])
    assert MARKUP in shown.wait(lambda: shown.find(".hint").text)
    nothing_injected(shown)


def test_large_ids_stay_exact(shown):
    items = shown.service.call("/v1/retrieve", {"prompt": PROMPT})["items"]
    ids = [item["item_id"] for item in items]
    assert any(int(float(number)) != number for number in ids)
    assert shown.ids() == [str(number) for number in ids]
    shown.find("[name=exclude]").send_keys(f"{ids[0]}\n")
    shown.wait(lambda: "exclude" in shown.driver.current_url and not shown.all("[aria-busy]"))
    assert shown.ids()[:9] == [str(number) for number in ids[1:]]
    shown.find("#explain [name=item]").send_keys(f"{ids[0]}\n")
    shown.wait(lambda: shown.texts(".explained .badge") == ["excluded"])
    assert str(ids[0]) in shown.find(".explained p").text


def test_text_from_the_address_and_from_errors_is_text(page):
    document = {"error": {"message": MARKUP, "type": "invalid_request_error", "param": "where", "code": "where"}}
    page.answer("/v1/retrieve", 400, document)
    page.open("q=%3Cimg+src%3Dx+onerror%3D%27window.injected+%3D+1%27%3E&set=%3Cb%3E&version=7777&field=%3Cb%3E")
    assert page.wait(lambda: page.texts(".items .message.error p")) == [MARKUP]
    assert page.find("[name=prompt]").get_attribute("value").startswith("<img")
    assert page.texts(".side [name=version] option:checked")[0].startswith("7777 (not served")
    nothing_injected(page)
