"""Set a page of Markdown as a PDF in two columns' type size. Runs in the environment envs/artifact.

python set_page.py PAGE.md PAGE.pdf

The bytes depend on the page only: no date is written into the PDF.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pypandoc
import typst

STYLE = """
#set document(title: "coldprefix: artifact appendix", date: none)
#set page(paper: "a4", margin: (x: 1.6cm, y: 1.8cm), numbering: "1")
#set text(size: 9pt, lang: "en")
#set par(justify: true)
#show heading: set block(above: 1.2em, below: 0.7em)
#show table: set text(size: 7.5pt)
#show table: set par(justify: false)
#show table.cell: set align(left)
#set table(stroke: 0.4pt + luma(180), inset: 3.5pt)
#show figure: set block(breakable: true)
#show raw: set text(size: 8pt)
#let horizontalrule = line(length: 100%)
"""


def main() -> None:
    page, pdf = map(Path, sys.argv[1:])
    body = pypandoc.convert_file(str(page), "typst", format="gfm")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.typ"
        source.write_text(STYLE + body)
        pdf.write_bytes(typst.compile(str(source), ignore_system_fonts=True))


if __name__ == "__main__":
    main()
