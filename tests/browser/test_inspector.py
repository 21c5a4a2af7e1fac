"""What a person does on the Inspector, in a real browser on the bundled model."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.views import boxed, cells, click, layout

LONG = (
    "The Eiffel Tower is located in the city of Paris and the Colosseum is located in the city of "
    "Rome and the Brandenburg Gate is located in the city of"
)


def heading(page: Page, *parts: str) -> None:
    for part in parts:
        expect(page.locator("#detail-heading")).to_contain_text(part)


def run(page: Page, text: str, target: str = "") -> None:
    page.get_by_label("Prompt", exact=True).fill(text)
    page.get_by_label("Target token").fill(target)
    page.get_by_role("button", name="Run", exact=True).click()


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def test_opens_measured_with_the_last_cell_selected(page: Page) -> None:
    heading(page, "layer 6", "position 11", "input ·of")
    expect(page.locator("#detail-sentence")).to_contain_text("Top token “·Paris”")
    assert cells(page)[-1][-1] == "<b>·Paris</b>"
    assert boxed(page) == ["6", "11"]
    expect(page.locator("#detail-facts")).to_contain_text("target ·Paris")
    assert page.locator("html").get_attribute("lang") == "en"


def test_cells_strip_and_curves_select(page: Page) -> None:
    click(page, "lens-grid", 5, 3)
    heading(page, "layer 3", "position 5", "input ·Tower")
    page.wait_for_function("() => !document.querySelector('[data-dash-is-loading]')")
    assert boxed(page) == ["3", "5"]
    shown = layout(page, "detail-curves")["shapes"][0]
    assert (shown["x0"], shown["x1"]) == (3, 3)
    click(page, "lens-strip", 2, 4)
    heading(page, "layer 4", "position 2")
    points = page.locator("#detail-curves .scatterlayer .point")
    expect(points.first).to_be_visible()
    click(page, "detail-curves", 1, page.evaluate(FIRST_CURVE, 1))
    heading(page, "layer 1", "position 2")


FIRST_CURVE = "layer => document.querySelector('#detail-curves .js-plotly-plot').data[0].y[layer]"


def test_arrow_keys_move_the_selection_and_stop_at_the_edges(page: Page) -> None:
    page.locator("#lens-focus").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    heading(page, "layer 5", "position 11")
    page.keyboard.press("ArrowLeft")
    heading(page, "layer 5", "position 10")
    page.keyboard.press("Home")
    heading(page, "layer 5", "position 0", "input The")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("End")
    heading(page, "layer 5", "position 11")


def test_colours(page: Page) -> None:
    for option, title in TITLES.items():
        choose(page, "Colour", option)
        expect(page.locator("#lens-grid .cbtitle")).to_have_text(title)


TITLES = {
    "Log-probability of the target": "log p(target), nat",
    "Rank of the target": "rank of target, 1 = best",
    "Entropy": "entropy, nat",
    "KL from the final layer": "KL(final || layer), nat",
    "JS from the final layer": "JS(final, layer), nat",
}


def test_a_component_without_entropy_offers_none(page: Page) -> None:
    choose(page, "Colour", "Entropy")
    expect(page.locator("#lens-grid .cbtitle")).to_have_text("entropy, nat")
    choose(page, "Component", "Attention's output")
    expect(page.locator("#lens-grid .cbtitle")).to_have_text("p(top-1), probability")
    page.locator("#lens-focus").focus()
    for _ in range(7):
        page.keyboard.press("ArrowDown")
    heading(page, "layer 1")


def test_dark_theme_stays_legible_and_is_remembered(opened: Callable[..., Page]) -> None:
    page = opened("?tab=logit_lens")
    heading(page, "layer 6")
    page.locator("#dark").dispatch_event("click")
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    expect(page.locator("#lens-grid .bglayer .bg, #lens-grid .main-svg").first).to_be_visible()
    page.wait_for_function(PAPER, arg="rgb(26, 29, 35)")
    page.reload()
    heading(page, "layer 6")
    page.wait_for_function(PAPER, arg="rgb(26, 29, 35)")
    page.get_by_role("tab", name="Layers").click()
    page.wait_for_function(PAPER.replace("lens-grid", "layers-figure"), arg="rgb(26, 29, 35)")
    assert layout(page, "layers-figure")["shapes"][0]["line"]["color"] == "#ff8787"


PAPER = """colour => getComputedStyle(
    document.querySelector('#lens-grid .main-svg')).backgroundColor === colour"""


def test_another_prompt_of_one_line_or_several(page: Page) -> None:
    run(page, "The Colosseum is located in the city of", " Rome")
    expect(page.locator("#detail-facts")).to_contain_text("target ·Rome")
    heading(page, "layer 6", "input ·of")
    expect(page.locator("#run-button")).to_be_enabled()
    run(page, "a b\nc d\ne f", "")
    heading(page, "layer 6", "input ·f")
    page.wait_for_function(
        "() => { const field = document.getElementById('prompt');"
        " return field.clientHeight > 50 && field.scrollHeight <= field.clientHeight; }"
    )


def test_enter_runs_and_without_a_target_there_is_no_target_colour(page: Page) -> None:
    choose(page, "Colour", "Rank of the target")
    expect(page.locator("#lens-grid .cbtitle")).to_contain_text("rank")
    click(page, "lens-grid", 5, 3)
    heading(page, "layer 3", "position 5")
    page.get_by_label("Target token").fill("")
    page.get_by_label("Prompt", exact=True).press("Enter")
    expect(page.locator("#detail-facts")).not_to_contain_text("target")
    heading(page, "layer 3", "position 5")
    expect(page.locator("#lens-grid .cbtitle")).to_contain_text("p(top-1)")


def test_a_bad_prompt_gets_one_line_and_keeps_the_page(page: Page) -> None:
    alert = page.get_by_role("alert")
    for text, target, says in (
        ("", " Paris", "empty prompt"),
        ("The city of", " Paris and Rome", "is 3 tokens"),
        ("The city of " * 100, " Paris", "tokens"),
    ):
        run(page, text, target)
        expect(alert).to_contain_text(says)
        assert "\n" not in alert.inner_text().strip()
        heading(page, "layer 6", "position 11")
    run(page, "The Colosseum is located in the city of", " Rome")
    expect(alert).to_have_count(0)


def test_a_copied_link_shows_the_same_page(page: Page, opened: Callable[..., Page]) -> None:
    run(page, "The Colosseum is located in the city of", " Rome")
    expect(page.locator("#detail-facts")).to_contain_text("target ·Rome")
    choose(page, "Colour", "Entropy")
    expect(page.locator("#lens-grid .cbtitle")).to_contain_text("entropy")
    click(page, "lens-grid", 4, 2)
    heading(page, "layer 2", "position 4")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#status")).to_have_text("Link copied")
    link = page.evaluate("navigator.clipboard.readText()")
    other = opened(link.partition("/?")[2].join(["?", ""]))
    heading(other, "layer 2", "position 4", page.locator("#detail-heading").inner_text())
    expect(other.locator("#lens-grid .cbtitle")).to_contain_text("entropy")
    expect(other.get_by_label("Prompt", exact=True)).to_have_value(
        "The Colosseum is located in the city of"
    )
    expect(other.get_by_label("Target token")).to_have_value(" Rome")


def test_a_model_that_cannot_be_loaded_is_said_and_the_page_goes_on(
    page: Page, opened: Callable[..., Page]
) -> None:
    choose(page, "Model", "broken")
    run(page, "The city of")
    expect(page.get_by_role("alert")).to_contain_text("config.json")
    expect(page.locator("#run-button")).to_be_enabled()
    heading(page, "layer 6", "position 11")
    page = opened("?model=broken&prompt=The+city+of")
    expect(page.get_by_role("alert")).to_contain_text("config.json")
    expect(page.get_by_text("Nothing measured yet")).to_be_visible()


def test_a_link_that_names_nothing_here_says_so(opened: Callable[..., Page]) -> None:
    page = opened("?prompt_id=0123456789abcdef&model=atlas")
    expect(page.get_by_role("alert")).to_contain_text("is not on this server")
    expect(page.get_by_text("Nothing measured yet")).to_be_visible()
    run(page, "The Colosseum is located in the city of")
    heading(page, "layer 6")
    expect(page.get_by_text("Nothing measured yet")).to_be_hidden()


def test_markup_in_a_token_is_text(page: Page) -> None:
    run(page, "<b>bold</b>\n<img src=x onerror=alert(1)>")
    heading(page, "layer 6", "input >")
    page.locator("#lens-focus").focus()
    page.keyboard.press("Home")
    heading(page, "position 0", "input <")
    expect(page.locator("#lens-grid .xtick").first).to_have_text("0<")
    expect(page.locator("#lens-grid .xtick").filter(has_text="⏎")).to_have_count(1)
    assert page.locator("main img, aside img").count() == 0


def test_the_table_holds_the_same_cells_and_selects(page: Page) -> None:
    page.get_by_text("Table", exact=True).click()
    table = page.locator("#lens-table")
    top = table.locator("[data-layer='6'][data-position='4']")
    expect(top).to_contain_text(cells(page)[-1][4])
    expect(page.locator("#lens-grid")).to_be_hidden()
    table.locator("[data-layer='0'][data-position='5']").click()
    heading(page, "layer 0", "position 5", "input ·Tower")
    expect(table.locator("[aria-current]")).to_have_attribute("data-position", "5")
    table.focus()
    page.keyboard.press("ArrowUp")
    heading(page, "layer 1", "position 5")


def test_a_deep_model_always_has_a_row_for_the_selected_layer(opened: Callable[..., Page]) -> None:
    page = opened(
        "?"
        + "&".join(["model=deep", f"prompt={LONG}", "layer=17", "position=20", "tab=logit_lens"])
    )
    heading(page, "layer 17", "position 20")
    expect(page.locator("#lens-grid .heatmaplayer text").first).to_be_visible()
    assert boxed(page) == ["17", "20"]
    page.locator("#lens-focus").focus()
    page.keyboard.press("ArrowDown")
    heading(page, "layer 16", "position 20")
    page.wait_for_function(f"() => ({BOXED_ROW})() === '16'")
    click(page, "lens-strip", 2, 29)
    heading(page, "layer 29", "position 2")
    page.wait_for_function(f"() => ({BOXED_ROW})() === '29'")
    assert boxed(page) == ["29", "2"]


BOXED_ROW = """() => {
    const {shapes, yaxis} = document.querySelector('#lens-grid .js-plotly-plot')._fullLayout;
    return yaxis.ticktext[shapes[shapes.length - 1].y0 + 0.5];
}"""


def test_export(page: Page) -> None:
    for entry, name in (
        ("All rows as CSV", "logit_lens.csv"),
        ("Figure as HTML", "logit_lens.html"),
    ):
        page.get_by_text("Export", exact=True).click()
        with page.expect_download() as download:
            page.get_by_role("button", name=entry).click()
        assert download.value.suggested_filename == name


def test_a_narrow_window_shows_every_column_and_the_whole_top_bar(page: Page) -> None:
    for width in (1280, 1400):
        page.set_viewport_size({"width": width, "height": 860})
        page.wait_for_function(
            "() => { const box = document.getElementById('lens-focus');"
            " return box.clientWidth < 1070 && box.scrollWidth <= box.clientWidth; }"
        )
    for width in (1280, 1000, 700):
        page.set_viewport_size({"width": width, "height": 860})
        page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
        for name in ("Run", "Copy link"):
            box = page.get_by_role("button", name=name, exact=True).bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= width
