"""A run of the workflow under a real SLURM of this machine, with the null engine of docs/extending.md: who runs, what is there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

from coldprefix.setup import building
from coldprefix.setup.environments import environment_key

CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
CONFIG = """
model: gpt2-tiny
accelerator: cpu
threads: 1
experiments: [main]
phases: [phase4]
states: [hit, miss]
configurations: [A64_B32]
question_tokens: 8
processes: 3
trials: 2
partners: [hit, miss]
burn_in: 0
settle_ms: 0
stream_tokens: 4
"""
TARGET = "results/summary.txt"
BLOCK = re.compile(r"^```python\n# (\S+?\.py)(?:: ENGINES)?\n(.*?)^```$", re.M | re.S)


def driver() -> Path:
    """The programs of the environment that has SLURM's executor."""
    return building.CACHE / "environments" / f"driver-slurm-{environment_key('driver-slurm')[:16]}" / "bin"


def checkout(folder: Path) -> Path:
    """A copy of the repository in which the engine of docs/extending.md is phase4."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("docs/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    blocks = dict(BLOCK.findall((ROOT / "docs/extending.md").read_text()))
    engine = folder / "src/coldprefix/engines/null/engine.py"
    engine.parent.mkdir()
    engine.write_text(blocks["src/coldprefix/engines/null/engine.py"])
    registry = folder / "src/coldprefix/study/registry.py"
    text = registry.read_text()
    with_null = re.sub(r"(?m)^(ENGINES = [({]\n)", r'\1    "null",\n', text)
    assert with_null != text
    registry.write_text(with_null)
    return folder


@dataclass
class Run:
    """A folder of results, measured from a checkout through a cluster that is up."""

    checkout: Path
    folder: Path
    nodes: Path  # the cluster's folder
    process: subprocess.Popen[bytes] | None = None

    def command(self, profile: str, *arguments: str) -> list[str]:
        place = ["-s", str(self.checkout / "Snakefile"), "--directory", str(self.folder), "--nocolor"]
        own = ["--workflow-profile", str(self.checkout / "profiles" / profile), "--configfile", str(self.folder / "my.yaml")]
        if profile == "slurm":
            own += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]
            own += ["--default-resources", "slurm_extra='--exclusive --no-requeue'", "runtime=5", "mem_mb=2000"]
        return [str(driver() / "snakemake"), *arguments, *place, *own]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{driver()}:{os.environ['PATH']}", "COLDPREFIX_MACHINE_LOCK": str(self.nodes / "head.lock")}

    def run(self, profile: str, *arguments: str, timeout_s: float = 400) -> subprocess.CompletedProcess[str]:
        """To its end."""
        command = self.command(profile, *arguments)
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=self.environment, timeout=timeout_s)

    def start(self, *arguments: str) -> None:
        """Under SLURM, in a session of its own; its output is in output.txt."""
        with open(self.folder / "output.txt", "wb") as output:
            self.process = subprocess.Popen(
                self.command("slurm", *arguments),
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )

    def end(self) -> None:
        """The head that a test which failed has left."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)

    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

    def cells(self) -> list[str]:
        """The cells that are measured."""
        raw = self.folder / "results/raw"
        return sorted(file.parent.relative_to(raw).as_posix() for file in raw.rglob("provenance.json"))

    def left(self) -> list[str]:
        """Partial files below the folder, and jobs in the queue."""
        return [str(path) for path in self.folder.rglob("*.part")] + [job["id"] for job in queue()]


def queue(name: str = "") -> list[dict[str, str]]:
    """Jobs that have not ended."""
    command = [
        "squeue",
        "-h",
        "-o",
        "%A %T %N",
        "--states=PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING",
        *([f"--name={name}"] if name else []),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [dict(zip(("id", "state", "node"), f"{line} -".split(), strict=False)) for line in found.splitlines()]


def cluster(*arguments: str) -> str:
    """Ask cluster.sh for something."""
    done = subprocess.run([str(CLUSTER), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
