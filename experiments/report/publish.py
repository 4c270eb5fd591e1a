"""`python -m experiments.report.publish STUDIES DOCS`: the reports of the studies for the documents.

`make studies` calls it. STUDIES holds a sweep per study; DOCS/results/NAME.md with its figures and DOCS/paper.md are
written anew.
"""

import sys
from pathlib import Path

import pandas as pd

from experiments.report import document_of
from experiments.show.atomic_write import write_whole
from experiments.show.figures import draw
from experiments.show.markdown import document_markdown, table_lines
from experiments.show.parts import Chart, Document, Section, Table
from experiments.studies import load_study, summaries
from experiments.sweep.folder import TIMING, read_results
from simulator.errors import TokenfleetError

PAPER = """# The paper's claims, one by one

What arXiv 2604.07472 (v1 April 2026, v2 June 2026; Cheng and Nguyen) reports, as stated in its abstract and in
published summaries, beside what we find. **Its full text, parameters and code are not public**, so nothing here refutes
it: where results differ, the parameters may. Ours are the scenario `paper-base`, this project's base problem, made for
the same setting (six query types, six models, ten GPU tiers, 100 USD a day). Demand is that of the problem for seed 0
and drawn around it for the others.

`make studies` writes this page from the results of the studies; each part links to the tables and figures it is from.
"""


def publish(studies: Path, docs: Path) -> None:
    """Write the documents of every study that is there.

    Raises
    ------
    InputError
        If a sweep is not whole, or nothing can be written.
    """
    results = docs / "results"
    results.mkdir(parents=True, exist_ok=True)
    paper = [PAPER]
    for name, summary in summaries().items():
        folder = studies / name
        if not folder.is_dir():
            print(f"{name}: no {folder}, left out", file=sys.stderr)
            continue
        marker, table = read_results(folder)
        document = document_of(folder)
        shown = [chart for section in document.sections if not section.detail for chart in section.charts]
        figures = results / name
        figures.mkdir(exist_ok=True)
        draw(shown, figures)
        for left in figures.glob("*.png"):  # GitHub shows the SVG, which is smaller and sharper
            left.unlink()
        write_whole(results / f"{name}.md", _page(document, name, shown, marker["options"]))
        timing = pd.read_parquet(folder / TIMING)
        claims = load_study(name).claims(table.to_pandas(), timing, marker)
        if claims:
            rows = [(c.paper, c.published, c.ours, c.holds + (f": {c.why}" if c.why else "")) for c in claims]
            columns = ("the paper says", "published", "here", "holds here")
            paper += [f"## {summary}", "", f"From [results/{name}.md](results/{name}.md).", ""]
            paper += [*table_lines(Table(title=name, columns=columns, rows=rows, labels=4))[2:], ""]
        print(f"{name}: {results / name}.md, {len(shown)} figures")
    write_whole(docs / "paper.md", "\n".join(paper).rstrip() + "\n")


def _page(document: Document, name: str, shown: list[Chart], options: object) -> str:
    """The report with its figures; details and what stands in paper.md are left out."""
    sections = [section for section in document.sections if not section.detail]
    command = Section(
        title="How it was made",
        text=[f"`make studies`; the sweep alone: see its line in the Makefile. Options: `{options}`."],
    )
    text = document_markdown(
        Document(title=document.title, summary=document.summary, sections=[*sections, command]),
        {chart.key: f"{name}/{chart.key}.svg" for chart in shown},
    )
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


if __name__ == "__main__":
    try:
        publish(Path(sys.argv[1]), Path(sys.argv[2]))
    except TokenfleetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
