"""Write the artifact: artifact/coldprefix-VERSION.tar.gz, its sha256, and ARTIFACT.pdf.

python pack_artifact.py [--out artifact]

From what is committed only; the same commit gives the same bytes. ARTIFACT.pdf is ARTIFACT.md, set by pandoc and typst in an environment of their
own (envs/artifact), and lies in the tarball, too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix import __version__
from coldprefix.artifact import bundle, page
from coldprefix.errors import ColdprefixError
from coldprefix.process.program import run_main
from coldprefix.setup.building import ROOT
from coldprefix.setup.environments import ensure_environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "artifact")
    arguments = parser.parse_args()
    if (ROOT / "ARTIFACT.md").read_text() != page.page():
        raise ColdprefixError("ARTIFACT.md is not what claims.yaml and the shipped data say; run `make docs`, and commit it")
    bundle.files_of(ROOT)  # before anything is made: is all committed?
    pdf = arguments.out / "ARTIFACT.pdf"
    set_as_pdf(ROOT / "ARTIFACT.md", pdf)
    target = arguments.out / f"coldprefix-{__version__}.tar.gz"
    digest = bundle.pack(ROOT, target, {"ARTIFACT.pdf": pdf.read_bytes()})
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB, sha256 {digest})\n{pdf}", flush=True)


def set_as_pdf(page: Path, pdf: Path) -> None:
    """Raises ColdprefixError with what the typesetter said."""
    pdf.parent.mkdir(parents=True, exist_ok=True)
    python = ensure_environment("artifact") / "bin" / "python"
    done = subprocess.run([python, Path(__file__).with_name("set_page.py"), page, pdf], capture_output=True, text=True)
    if done.returncode:
        raise ColdprefixError(f"{page} could not be set as a PDF:\n{done.stderr.strip()}")


if __name__ == "__main__":
    run_main(main)
