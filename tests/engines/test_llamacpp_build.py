"""What decides the build of llama.cpp, and which compiler nvcc links it with: one whose libraries share the system's libstdc++."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldprefix.engines.llamacpp import build
from coldprefix.engines.llamacpp.build import sharing_compiler
from coldprefix.errors import ColdprefixError


@pytest.fixture
def static(tmp_path: Path) -> str:
    """A compiler that links libstdc++ statically, as some images' do."""
    program = tmp_path / "static++"
    program.write_text('#!/bin/sh\nexec g++ -static-libstdc++ "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_a_compiler_that_links_libstdcxx_statically_is_passed_over(static: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert sharing_compiler(["g++", static]) == "g++"
    assert "since" not in capfd.readouterr().err
    assert sharing_compiler([static, "no-such-compiler", "g++"]) == "g++"
    assert f"built with g++, since {static} links libstdc++ statically" in capfd.readouterr().err


def test_where_no_compiler_will_do_the_message_says_what_to_install(static: str) -> None:
    with pytest.raises(ColdprefixError, match=r"tried .*static\+\+.*apt-get install g\+\+"):
        sharing_compiler([static])
    with pytest.raises(ColdprefixError, match="tried none"):
        sharing_compiler(["no-such-compiler"])


def test_what_is_said_to_the_compiler_decides_the_build_and_a_comment_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, text, copy = build.built_from("cpu"), build.FASTER.read_text(), tmp_path / "faster.cmake"
    monkeypatch.setattr(build, "FASTER", copy)
    copy.write_text(f"# why\n{text}")
    assert build.built_from("cpu") == before
    copy.write_text(text.replace("-O0", "-O3"))
    assert build.built_from("cpu") != before
