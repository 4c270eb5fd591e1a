"""Tables, Markdown, figures, the page: all is shown, nothing breaks out, the same document gives the same bytes."""

import io
import re

import pytest
from rich.console import Console

from experiments.show.figures import draw
from experiments.show.markdown import document_markdown
from experiments.show.page import document_html, plotly_figure
from experiments.show.parts import FlowChart, LineChart
from experiments.show.terminal import rich_table
from tests.show_samples import CHARTS, EVIL, FLOWS, LINES, document


def test_the_terminal_shows_a_repeated_word_once():
    out = io.StringIO()
    Console(file=out, width=80).print(rich_table(document().sections[0].tables[0]))
    assert "cost [USD]" in out.getvalue()
    assert sum(line.strip().startswith("gh") for line in out.getvalue().splitlines()) == 1
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_markdown_has_every_table_and_figure():
    text = document_markdown(document(), {chart.key: f"{chart.key}.svg" for chart in CHARTS})
    for chart in CHARTS:
        assert f"![{chart.title}]({chart.key}.svg)" in text
    assert "| gh | 1 | 1.00 ±0.10 |" in text
    assert "<script>" not in text.split("\n", 1)[1], "what is text stays text"
    assert "![Bars]" not in document_markdown(document(), {})


def test_figures_are_the_same_bytes_twice(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths = draw(CHARTS, tmp_path / name)
        assert [path.name for path in paths] == [f"{c.key}{s}" for c in CHARTS for s in (".png", ".svg")]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert path.stat().st_size > 2000


def test_an_empty_chart_is_drawn_too(tmp_path):
    empty = [
        LineChart(key="none", title="None", x_label="x", y_label="y", lines=[]),
        FlowChart(key="no-flows", title="None", columns=[("a", [])], flows=[]),
    ]
    assert len(draw(empty, tmp_path)) == 4


class TestPage:
    def test_it_is_the_same_bytes_twice(self):
        assert document_html(document()) == document_html(document())

    def test_it_needs_no_network(self):
        page = document_html(document())
        own = page.replace(page[page.index("<script>") : page.index("</script>")], "", 1)  # but for Plotly's script
        assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", own)

    def test_what_is_text_stays_text(self):
        page = document_html(document())
        assert EVIL not in page
        assert "document.title='broken'</script>" not in page

    def test_every_chart_has_its_place(self):
        page = document_html(document())
        for chart in CHARTS:
            assert page.count(f'id="chart-{chart.key}"') == 1

    def test_a_line_and_its_band_are_toggled_together_and_a_policy_has_one_colour(self):
        colours = {"gh": "#0072B2", EVIL: "#D55E00"}
        traces = plotly_figure(LINES, colours, {}).data
        of_gh = [trace for trace in traces if trace.legendgroup == "gh"]
        assert len(of_gh) == 4, "two edges of the band, and two lines"
        assert {trace.line.color for trace in of_gh if trace.showlegend is not False} == {"#0072B2"}
        assert sum(trace.showlegend is not False for trace in of_gh) == 2

    def test_flows_are_as_wide_as_their_values(self):
        (sankey,) = plotly_figure(FLOWS, {}, {}).data
        names = list(sankey.node.label)
        link = sankey.link
        ends = zip(link.source, link.target, link.value, strict=True)
        widths = {(names[source], names[target]): value for source, target, value in ends}
        assert widths["8b on l4", "2 GPUs l4"] == pytest.approx(0.9)
        assert len(widths) == 4
