"""The page of the service: searches, the beam, explanations and comparisons, with Chromium."""

import pytest

PROMPT = "Recommend me a western"
HASH = "q=Recommend+me+a+western"
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
TREE = ".pane.a .tree [role=treeitem]"


def same_as(page, body, pane="a"):
    """Check that a pane shows the items of a request to /v1/retrieve."""
    items = page.service.call("/v1/retrieve", body)["items"]
    assert page.ids(pane) == [str(item["item_id"]) for item in items]
    assert page.texts(f".pane.{pane} .ranked .sid") == ["-".join(map(str, item["sid"])) for item in items]
    shown = page.texts(f".pane.{pane} .ranked td:nth-last-child(2)")
    assert [float(text.replace(MINUS, "-")) for text in shown] == pytest.approx(
        [item["score"] for item in items], abs=6e-4
    )
    return items


def cut_item(page):
    """The id of a film that no beam of the prompt reaches."""
    others = page.service.call("/v1/retrieve", {"prompt": "A French comedy", "k": 10})["items"]
    for item in others:
        explained = page.service.call("/v1/explain", {"prompt": PROMPT, "item_id": item["item_id"]})["explanation"]
        if explained["outcome"] == "cut":
            return item["item_id"]
    raise AssertionError("every film is found")


def test_typing_and_clicking_gives_the_items_of_the_service(page):
    page.open()
    page.find("[name=prompt]").send_keys(PROMPT)
    page.find(".side [name=set]").click()
    page.find(".side [name=beam]").clear()
    page.find(".side [name=beam]").send_keys("20")
    page.find("button[type=submit].primary").click()
    page.searched()
    name = page.find(".side [name=set]").get_attribute("value")
    items = same_as(page, {"prompt": PROMPT, "sets": [name], "beam_width": 20})
    assert len(items) == 10
    attributes = [column["name"] for column in page.service.call("/v1/index")["attributes"]][:4]
    assert page.texts(".items thead th")[2:-2] == attributes[1:]
    assert page.texts(".items .name") == [item["attributes"]["title"] for item in items]
    assert "10 items" in page.find("#status").get_attribute("textContent")


def test_enter_searches_and_the_address_has_the_search(page):
    page.open()
    page.find("[name=prompt]").send_keys("A French comedy\n")
    page.searched()
    page.find("[name=where]").send_keys("year < 1980")
    page.find("[name=where]").send_keys("\n")
    page.wait(lambda: "where" in page.driver.current_url)
    page.searched()
    body = {"prompt": "A French comedy", "where": "year < 1980"}
    same_as(page, body)
    address = page.driver.current_url
    page.open(address.partition("#")[2])
    page.searched()
    same_as(page, body)
    assert page.find("[name=where]").get_attribute("value") == "year < 1980"


def test_back_shows_the_search_before(page):
    page.search(HASH)
    first = page.ids()
    page.find("[name=exclude]").send_keys(f"{first[0]}, {first[1]}\n")
    page.wait(lambda: page.ids() != first and not page.all("[aria-busy]"))
    assert page.ids()[:8] == first[2:]
    page.driver.back()
    page.wait(lambda: page.ids() == first)
    assert page.find("[name=exclude]").get_attribute("value") == ""


def test_columns_change_without_a_search(page):
    page.search(HASH)
    requests = len(
        page.run("return performance.getEntriesByType('resource').filter((one) => one.name.includes('/v1/'))")
    )
    page.find("#columns summary").click()
    page.find("#columns input[value=director]").click()
    items = page.service.call("/v1/retrieve", {"prompt": PROMPT})["items"]
    assert page.texts(".items thead th")[-3] == "director"
    assert page.texts(".items tbody td:nth-last-child(3)") == [item["attributes"]["director"] for item in items]
    assert "field=director" in page.driver.current_url
    page.press("ESCAPE")
    assert page.find("#columns").get_attribute("open") is None
    after = page.run("return performance.getEntriesByType('resource').filter((one) => one.name.includes('/v1/'))")
    assert len(after) == requests


def test_tree_has_every_beam(page):
    page.search(HASH)
    levels = page.service.call("/v1/trace", {"prompt": PROMPT, "k": 10})["levels"]
    beams = [beam for level in levels for beam in level["beams"]]
    assert len(beams) > 100
    assert len(page.all(TREE)) == len(page.all(".edges path")) == len(beams)
    assert len(page.all(".nodes .kept")) == sum(beam["survives"] for beam in beams)
    names = page.run(
        "return [...document.querySelectorAll(arguments[0])].map((node) => node.getAttribute('aria-label'))", TREE
    )
    assert all(name.startswith("-".join(map(str, beam["prefix"]))) for name, beam in zip(names, beams, strict=True))
    # The same as tables.
    page.find(".as-tables summary").click()
    page.wait(lambda: len(page.all(".as-tables table")) == len(levels))
    ranked = [sorted(level["beams"], key=lambda beam: beam["rank"]) for level in levels]
    prefixes = ["-".join(map(str, beam["prefix"])) for level in ranked for beam in level]
    assert page.texts(".as-tables tbody th") == prefixes


def test_the_tree_is_of_the_version_of_the_items(page):
    page.before_load(
        """window.sent = [];
        const real = window.fetch;
        window.fetch = (url, options) => {
          if (options?.body) window.sent.push([new URL(url).pathname, JSON.parse(options.body).version ?? null]);
          return real(url, options);
        }"""
    )
    page.search(HASH)
    assert page.run("return window.sent") == [["/v1/retrieve", None], ["/v1/trace", 2]]


def test_lines_of_the_tree_do_not_cross(page):
    page.search(HASH)
    heights = page.run(
        """const rows = new Map();
        for (const { spot } of document.querySelectorAll("[role=treeitem]")) {
          rows.set(spot.number, [...(rows.get(spot.number) ?? []), spot.y]);
        }
        return [...rows.values()]"""
    )
    assert all(level == sorted(level) and len(set(level)) == len(level) for level in heights)


def test_a_row_brings_out_its_path(page):
    page.search(HASH)
    levels = page.service.call("/v1/index")["num_levels"]
    row = page.all(".items tbody tr")[2]
    page.point_at(row)
    page.wait(lambda: len(page.all(".nodes .on")) == levels)
    sid = row.find_element("css selector", ".sid").text
    assert page.all(".nodes .on")[-1].get_attribute("aria-label").startswith(f"{sid}, item 3: ")
    page.point_at(page.find("h1"))
    page.wait(lambda: not page.all(".dimmed"))
    # With the keyboard, and kept by a press.
    button = page.all("button.rank")[4]
    page.run("arguments[0].focus()", button)
    assert len(page.all(".nodes .on")) == levels
    page.press("SPACE")
    assert button.get_attribute("aria-pressed") == "true"
    page.press("TAB")
    assert "item 6: " in page.all(".nodes .on")[-1].get_attribute("aria-label")
    page.run("document.activeElement.blur()")
    assert "item 5: " in page.all(".nodes .on")[-1].get_attribute("aria-label")


def test_the_tree_with_the_keyboard(page):
    page.search(HASH)
    assert len(page.all(f"{TREE}[tabindex='0']")) == 1
    page.run("document.querySelector('.tree [tabindex=\"0\"]').focus()")
    label = page.focused().get_attribute("aria-label")
    assert "rank 1," in label
    hint = page.find(".hint")
    assert hint.is_displayed()
    assert label.split(",")[0] in hint.text
    page.press("ARROW_LEFT")
    parent = page.focused().get_attribute("aria-label").split(",")[0]
    assert label.startswith(f"{parent}-")
    page.press("ARROW_RIGHT")
    assert page.focused().get_attribute("aria-label").startswith(f"{parent}-")
    page.press("ESCAPE")
    assert not hint.is_displayed()
    page.press("END")
    last = page.focused().get_attribute("aria-label")
    assert last == page.all(TREE)[-1].get_attribute("aria-label")
    page.press("HOME", "ARROW_DOWN")
    assert page.focused().get_attribute("aria-label") != last
    # Enter goes to the row of the item.
    best = page.ids()[0]
    page.run("document.querySelector(\"[role=treeitem][aria-label*='item 1: ']\").focus()")
    page.press("ENTER")
    assert page.focused().get_attribute("aria-label") == f"Rank 1: show the path of item {best}"


def test_why_an_item_is_missing(page):
    page.search(HASH)
    missing = cut_item(page)
    page.find("#explain [name=item]").send_keys(f"{missing}\n")
    page.wait(lambda: page.all(".explained"))
    explained = page.service.call("/v1/explain", {"prompt": PROMPT, "item_id": missing})["explanation"]
    assert explained["text"] in page.find(".explained p").text
    assert page.find(".explained .badge").text == "cut"
    shown = page.run(
        """return [...document.querySelectorAll(".explained tbody tr")]
          .map((row) => [...row.cells].map((cell) => cell.textContent))"""
    )
    for number, (cells, level) in enumerate(zip(shown, explained["levels"], strict=True)):
        rank = DASH if level["rank"] is None else f"{level['rank']:,}"
        assert cells[0] == str(number)
        assert cells[4] == f"{rank} of {level['candidates']:,}"
        assert float(cells[3].replace(MINUS, "-")) == pytest.approx(level["to_beat"], abs=6e-4)
        assert cells[5] == str(level["kept"])
    rows = page.all(".explained tbody tr")
    assert [number for number, row in enumerate(rows) if row.get_attribute("class") == "lost"] == [explained["level"]]
    assert page.texts(".mark text") == [f"item {missing}"]
    # A returned item, and one that does not exist.
    for item, outcome in ((page.ids()[1], "returned"), (987_654_321, "not in the index")):
        page.find("#explain [name=item]").clear()
        page.find("#explain [name=item]").send_keys(f"{item}\n")
        page.wait(lambda outcome=outcome: page.texts(".explained .badge") == [outcome])
        assert not page.all(".mark path")


def test_why_an_item_with_a_title_is_missing(page):
    page.search(HASH)
    films = page.service.call("/v1/retrieve", {"prompt": PROMPT, "k": 10})["items"]
    titles = [film["attributes"]["title"] for film in films]
    film = next(film for film in films if titles.count(film["attributes"]["title"]) == 1)
    page.find("#explain [name=item]").send_keys(f"title={film['attributes']['title']}\n")
    page.wait(lambda: page.all("#explanation > *"))
    assert film["attributes"]["title"] in page.find("#explanation").text
    assert str(film["item_id"]) in page.find("#explanation").text


def test_side_by_side_marks_the_differences(page):
    page.search(HASH)
    page.find("[name=compare]").click()
    page.wait(lambda: len(page.all(".pane")) == 2 and not page.all("[aria-busy]"))
    assert page.texts(".summary span")[:3] == ["10 in both", "0 only in A", "0 only in B"]
    page.all(".side")[1].find_element("css selector", "[name=where]").send_keys("year >= 2000\n")
    page.wait(lambda: "b.where" in page.driver.current_url and not page.all("[aria-busy]"))
    a = same_as(page, {"prompt": PROMPT})
    b = same_as(page, {"prompt": PROMPT, "where": "year >= 2000"}, "b")
    rank_in = [{item["item_id"]: row + 1 for row, item in enumerate(items)} for items in (a, b)]
    only = [
        [item["item_id"] for item in items if item["item_id"] not in other]
        for items, other in ((a, rank_in[1]), (b, rank_in[0]))
    ]
    assert only[0]
    for pane, ids in zip("ab", only, strict=True):
        marked = page.texts(f".pane.{pane} tr.only .id")
        assert marked == [str(number) for number in ids]
    both = len(a) - len(only[0])
    assert page.texts(".summary span")[:3] == [
        f"{both} in both",
        f"{len(only[0])} only in A",
        f"{len(only[1])} only in B",
    ]
    for row, item in zip(page.all(".pane.b tbody tr"), b, strict=True):
        there = rank_in[0].get(item["item_id"])
        if there is None:
            continue
        gained = there - rank_in[1][item["item_id"]]
        arrow = f"▲{gained}" if gained > 0 else f"▼{-gained}"
        words = f"{abs(gained)} {'higher' if gained > 0 else 'lower'} in B than in A" if gained else "the same rank"
        shown = row.find_element("css selector", ".other").get_attribute("textContent").split(None, 1)
        assert "".join(shown).replace(" ", "") == f"{there}{arrow if gained else ''},{words}".replace(" ", "")
    # Why is an item of A not in B?
    page.find(".pane.a tr.only .link").click()
    page.wait(lambda: page.all(".explained"))
    assert page.texts(".explained .badge") == ["not in the set"]


def test_side_by_side_with_versions(page):
    page.search(f"{HASH}&compare=1&version=1")
    assert "version 1" in page.find(".pane.a .facts").text
    assert "version 2" in page.find(".pane.b .facts").text
    a = same_as(page, {"prompt": PROMPT, "version": 1})
    b = same_as(page, {"prompt": PROMPT, "version": 2}, "b")
    # Two films were removed from version 2; the others have moved up.
    assert [item for item in a if item not in b] == [
        item for item in a if str(item["item_id"]) in page.texts("tr.only .id")
    ]
    assert page.texts(".summary span")[:3] == ["8 in both", "2 only in A", "2 only in B"]
    assert "▲" in page.find(".pane.b .up").text
    page.find(".pane.a tr.only .link").click()
    page.wait(lambda: page.texts(".explained .badge") == ["removed"])
