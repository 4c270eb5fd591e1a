"""A document with every kind of chart, and names that try to break out of the page."""

from experiments.show.parts import (
    AreaChart,
    BarChart,
    Document,
    Flow,
    FlowChart,
    Line,
    LineChart,
    Section,
    Table,
)

EVIL = "</script><script>document.title='broken'</script>"

LINES = LineChart(
    key="lines",
    title="Curves",
    x_label="factor",
    y_label="cost [USD]",
    lines=[
        Line(name="gh", x=[1.0, 2.0, 3.0], y=[1.0, None, 3.0], low=[0.5, None, 2.5], high=[1.5, None, 3.5]),
        Line(name="gh, once", x=[1.0, 2.0], y=[2.0, 2.5], group="gh", dashed=True, labels=["a", "b"]),
        Line(name=EVIL, x=[1.0, 3.0], y=[0.5, 1.0], steps=True, markers=False),
    ],
    from_zero=True,
    x_ticks={1.0: "one", 3.0: "three"},
)
LOGS = LineChart(
    key="logs",
    title="Logs",
    x_label="x",
    y_label="y",
    lines=[Line(name="agh", x=[1, 10], y=[1, 100])],
    log_x=True,
    log_y=True,
)
BARS = BarChart(
    key="bars",
    title="Bars",
    y_label="cost [USD]",
    categories=["gh", "agh"],
    parts={"rent": [2.0, 1.0], "moving": [-0.5, None]},
)
SPREAD = BarChart(
    key="spread", title="Bars with bounds", y_label="y", categories=["a"], parts={"cost": [2.0]}, low=[1.5], high=[2.5]
)
AREAS = AreaChart(
    key="areas",
    title="Areas",
    x_label="time [h]",
    y_label="GPUs",
    x=[0, 1, 2],
    areas={"l4": [1, 2, 2], "h100": [0, 0, 4]},
)
FLOWS = FlowChart(
    key="flows",
    title="The plan",
    columns=[("types", ["chat", "code"]), ("deployments", ["8b on l4", "unmet"]), ("GPUs", ["2 GPUs l4"])],
    flows=[
        Flow(source="chat", target="8b on l4", value=0.6, text="100 %"),
        Flow(source="code", target="8b on l4", value=0.3),
        Flow(source="code", target="unmet", value=0.1),
        Flow(source="8b on l4", target="2 GPUs l4", value=0.9),
    ],
)
CHARTS = [LINES, LOGS, BARS, SPREAD, AREAS, FLOWS]


def document() -> Document:
    table = Table(
        title="Numbers",
        columns=("policy", "factor", "cost [USD]"),
        rows=[("gh", "1", "1.00 ±0.10"), ("gh", "2", "2.00"), (EVIL, "1", "3.00")],
        labels=2,
        note="a note",
    )
    return Document(
        title=f"All kinds {EVIL}",
        summary=["In words."],
        sections=[
            Section(title="Curves", text=["A sentence."], tables=[table], charts=[LINES, LOGS]),
            Section(title="Others", tables=[table], charts=CHARTS[2:], detail=True),
        ],
        specification={"options": {"policy": EVIL}},
    )
