"""Reports in headless Chromium: every chart drawn, no console error, no network, light and dark, wide and narrow."""

import shutil
from itertools import combinations
from pathlib import Path

import pytest

from experiments.report import document_of
from experiments.show.page import document_html
from experiments.show.parts import FlowChart
from tests.show_samples import CHARTS, document

webdriver = pytest.importorskip("selenium.webdriver")
ui = pytest.importorskip("selenium.webdriver.support.ui")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="needs Debian's packages chromium and chromium-driver"
)
SCREENSHOTS = Path(__file__).parents[3] / "out" / "screenshots"


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(run_cli, tmp_path_factory):
    """Charts of every kind, a replay and a study."""
    folder = tmp_path_factory.mktemp("pages")
    run_cli("study", "ablation", "--policy", "gh", "--policy", "agh", "--seeds", 2, "--jobs", 1, "--out", folder / "a")
    small = ("--policy", "gh", "--factors", "1,1.5", "--duration", "1m", "--seeds", 2, "--jobs", 1)
    run_cli("stress", *small, "--out", folder / "s")
    run_cli("replay", "--policy", "gh", "--out", folder / "r")
    made = {"all": (document(), folder / "all.html")}
    for name in ("a", "s", "r"):
        made[name] = (document_of(folder / name), folder / f"{name}.html")
    for shown, path in made.values():
        path.write_text(document_html(shown))
    return made


def show(browser, path, *, width=1200, dark=False):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(path.as_uri())
    wait = ui.WebDriverWait(browser, 30)
    wait.until(lambda b: b.execute_script("return document.querySelectorAll('.js-plotly-plot .main-svg').length > 0"))
    wait.until(
        lambda b: b.execute_script(
            "return [...document.querySelectorAll('.plotly-graph-div')].every(d => d.querySelector('.main-svg'))"
        )
    )


@pytest.mark.parametrize("name", ["all", "r", *(pytest.param(study, marks=pytest.mark.slow) for study in "sa")])
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (375, True)])
def test_every_chart_is_drawn_and_nothing_complains(browser, pages, name, width, dark):
    shown, path = pages[name]
    show(browser, path, width=width, dark=dark)
    for chart in shown.charts:
        drawn = browser.execute_script(
            "const d = document.getElementById(arguments[0]);"
            "const s = d.querySelector('.main-svg').getBoundingClientRect();"
            "return [s.width, s.height, d.querySelectorAll('.trace, .bars, .sankey-link, .fills path, .point').length]",
            f"chart-{chart.key}",
        )
        assert drawn[0] > 200, chart.key
        assert drawn[1] > 150, chart.key
        assert drawn[2] > 0, f"{chart.key} has nothing in it"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(SCREENSHOTS / f"report-{name}-{width}-{'dark' if dark else 'light'}.png"))
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0, "it asked for more"
    assert browser.title == shown.title, "what is text stayed text"


def brightness(browser, script):
    colour = browser.execute_script(f"return {script}")
    red, green, blue = (float(part) for part in colour[colour.index("(") + 1 :].rstrip(")").split(",")[:3])
    return (red + green + blue) / 3


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_the_paper(browser, pages, dark):
    show(browser, pages["all"][1], dark=dark)
    paper = brightness(browser, "getComputedStyle(document.body).backgroundColor")
    for text in ("getComputedStyle(document.body).color",
                 "getComputedStyle(document.querySelector('#chart-lines .xtick text')).fill",
                 "getComputedStyle(document.querySelector('#chart-lines .legendtext')).fill",
                 "getComputedStyle(document.querySelector('#chart-flows text')).fill"):  # fmt: skip
        assert abs(brightness(browser, text) - paper) > 120, text
    assert (paper < 80) == dark


def test_a_click_on_the_legend_hides_a_policy(browser, pages):
    show(browser, pages["all"][1])
    visible = "return document.getElementById('chart-lines').data.filter(t => t.visible === 'legendonly').length"
    assert browser.execute_script(visible) == 0
    toggle = browser.find_element("css selector", "#chart-lines .legendtoggle")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", toggle)
    webdriver.ActionChains(browser).move_to_element(toggle).click().perform()
    wait = ui.WebDriverWait(browser, 10)
    assert wait.until(lambda b: b.execute_script(visible)) == 4, "its two lines and the edges of its band"


@pytest.mark.parametrize("width", [1200, 375])
def test_a_plan_is_whole_and_its_names_apart(browser, pages, width):
    """Nodes within the picture, no two names on one another, and a picture wider than the screen scrolls by itself."""
    shown, path = pages["r"]
    show(browser, path, width=width)
    for key in (chart.key for chart in shown.charts if isinstance(chart, FlowChart)):
        picture, *nodes = browser.execute_script(
            "const d = document.getElementById(arguments[0]);"
            "return [d.querySelector('.main-svg'), ...d.querySelectorAll('.node-rect')]"
            ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.right, r.top, r.bottom])",
            f"chart-{key}",
        )
        assert nodes, key
        for left, right, top, bottom in nodes:
            assert picture[0] <= left < right <= picture[1] + 1, key
            assert picture[2] <= top < bottom <= picture[3], f"{key}: a node is cut"
        names = browser.execute_script(
            "return [...document.getElementById(arguments[0]).querySelectorAll('.node-label')]"
            ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.right, r.top, r.bottom])",
            f"chart-{key}",
        )
        for one, other in combinations(names, 2):
            beside = one[1] <= other[0] or other[1] <= one[0]
            assert beside or one[3] <= other[2] or other[3] <= one[2], f"{key}: names on one another"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_no_button_sends_a_chart_away(browser, pages):
    show(browser, pages["all"][1])
    titles = browser.execute_script("return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
    assert "Zoom in" in titles
    assert not [title for title in titles if "hare" in title or "loud" in title]


def test_there_is_something_to_test():
    assert len({chart.key for chart in CHARTS}) == 6
