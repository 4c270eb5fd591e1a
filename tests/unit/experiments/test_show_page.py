"""The page keeps its data to itself, and flows stand where they belong."""

import json
import re
from itertools import pairwise

import pytest

from experiments.show.page import document_html, plotly_figure
from experiments.show.parts import Document, Flow, FlowChart, Section
from tests.show_samples import FLOWS, document

SHARES = {"a": 0.2, "b": 0.1, "c": 0.3, "d": 0.4}
UNEVEN = FlowChart(
    key="uneven",
    title="Uneven",
    columns=[("types", list(SHARES)), ("deployments", ["one"]), ("GPUs", ["4 GPUs"])],
    flows=[
        *(Flow(source=name, target="one", value=share) for name, share in SHARES.items()),
        Flow(source="one", target="4 GPUs", value=1.0),
    ],
)
IDLE = FlowChart(key="idle", title="Idle", columns=[("a", ["x"]), ("b", ["y"])], flows=[])


def test_no_chart_can_be_uploaded():
    configs = re.findall(r'\{[^{}]*"modeBarButtonsToRemove"[^{}]*\}', document_html(document()))
    assert len(configs) == len(document().charts)
    assert all("sendChartToCloud" in json.loads(config)["modeBarButtonsToRemove"] for config in configs)


@pytest.mark.parametrize("chart", [FLOWS, UNEVEN])
def test_nodes_stand_in_the_picture_and_apart(chart):
    """Plotly draws all nodes on one scale, which the fullest column sets, and `pad` pixels apart."""
    figure = plotly_figure(chart, {}, {})
    (sankey,) = figure.data
    space = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    place = {name: (y * space) for name, y in zip(sankey.node.label, sankey.node.y, strict=True)}
    into = {name: sum(f.value for f in chart.flows if f.target == name) for name in place}
    out = {name: sum(f.value for f in chart.flows if f.source == name) for name in place}
    size = {name: max(into[name], out[name]) for name in place}
    scale = min(
        (space - sankey.node.pad * (len(nodes) - 1)) / sum(size[name] for name in nodes) for _, nodes in chart.columns
    )
    for _, nodes in chart.columns:
        edges = [(place[name] - scale * size[name] / 2, place[name] + scale * size[name] / 2) for name in nodes]
        assert edges[0][0] >= -1e-6
        assert edges[-1][1] <= space + 1e-6
        for (_, bottom), (top, _) in pairwise(edges):
            assert top - bottom == pytest.approx(sankey.node.pad)


def test_columns_of_flows_have_headings():
    texts = [note.text for note in plotly_figure(UNEVEN, {}, {}).layout.annotations]
    assert texts == ["types", "deployments", "GPUs"]


def test_a_plan_that_serves_nothing_is_drawn():
    page = document_html(Document(title="t", summary=[], sections=[Section(title="s", charts=[IDLE])]))
    assert 'id="chart-idle"' in page
