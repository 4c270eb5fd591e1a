"""A document as GitHub Markdown, with its charts as image files beside it."""

from collections.abc import Mapping

from experiments.show.parts import Document, Table


def document_markdown(document: Document, figures: Mapping[str, str]) -> str:
    """The document as text.

    Parameters
    ----------
    figures
        Path of each chart's image by the chart's key; a chart without one is left out.
    """
    lines = [f"# {_cell(document.title)}", "", *(f"- {_cell(sentence)}" for sentence in document.summary), ""]
    for section in document.sections:
        lines += [f"## {_cell(section.title)}", ""]
        for sentence in section.text:
            lines += [f"{sentence}", ""]
        for table in section.tables:
            lines += [*table_lines(table), ""]
        for chart in section.charts:
            if chart.key in figures:
                lines += [f"![{_cell(chart.title)}]({figures[chart.key]})", ""]
                lines += [chart.note, ""] if chart.note else []
    return "\n".join(lines).rstrip() + "\n"


def table_lines(table: Table) -> list[str]:
    """A title, the table and its note."""
    rule = ["---" if number < table.labels else "---:" for number in range(len(table.columns))]
    rows = [table.columns, rule, *table.rows]
    lines = [f"**{_cell(table.title)}**", "", *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)]
    return [*lines, "", table.note] if table.note else lines


def _cell(text: str) -> str:
    for character in "\\|<>*_":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
