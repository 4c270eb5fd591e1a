"""MkDocs hook: the documents of the repository's root are pages of the site too, with their links turned."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINKED = ("LICENSE", "CITATION.cff")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the documents of the root, in which `docs/x.md` becomes `x.md`."""
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text.replace("](docs/", "](")))
    for name in LINKED:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links of `docs/` to the root lead to the pages that stand in for it."""
    for name in PAGES:
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    return markdown
