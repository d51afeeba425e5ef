"""Other programs that read a model: llama.cpp's converter and llama-quantize, and torch for weights that exist as a pickle only."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from coldprefix.engines.llamacpp.build import ensure_build, ensure_source, source_key
from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of
from coldprefix.models.config_json import read_config, told
from coldprefix.process import supervise
from coldprefix.process.server import clean_environment
from coldprefix.setup.building import ROOT
from coldprefix.setup.environments import ensure_environment, environment_key

# Programs that read a model get no token, and nothing from a network: llama.cpp's converter lets transformers run code of the repository
# that a model names, for some architectures.
CONVERTING = clean_environment({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
# Models whose converter insists on the tail that predicts several tokens at once (conversion/qwen.py, _QwenMtpMixin), which not all of their
# weights hold, and which no engine uses here.
WITHOUT_TAIL = (
    "Qwen3NextForCausalLM",
    *("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
)


def unpickle(name: str, pickle: Path, safetensors: Path) -> None:
    """Turn pickled weights into safetensors, in the environment that has torch; the pickle is removed."""
    python = ensure_environment("convert") / "bin" / "python"
    script = ROOT / "workflow" / "scripts" / "unpickle_weights.py"
    done = supervise.run([python, script, pickle, safetensors], env=CONVERTING)
    if done.returncode != 0:
        raise ColdprefixError(f"cannot convert {pickle.name} (models.{name}.convert_pickle): {done.stderr.strip()[-800:]}")
    pickle.unlink()


def converter() -> list[str | Path]:
    """The command of llama.cpp's own converter to GGUF F16, of the source that llama.cpp is built from; the model's folder and --outfile follow."""
    python = ensure_environment("convert") / "bin" / "python"
    return [python, ensure_source() / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py", "--outtype", "f16"]


def converter_key() -> str:
    """sha256 over what the converter is made of."""
    return sha256_of(f"{source_key()} {environment_key('convert')}".encode())


def convert(name: str, folder: Path, outfile: Path, log: Path) -> None:
    """Convert the model in ``folder`` to GGUF F16. Raises ColdprefixError, with the end of the log, if the converter refuses it."""
    architecture = told(read_config(folder / "config.json", name))["architecture"]
    options = ["--no-mtp"] if architecture in WITHOUT_TAIL else []
    _run([*converter(), *options, folder, "--outfile", outfile], f"llama.cpp's converter cannot convert {name}", log)


def quantise(name: str, original: Path, kind: str, outfile: Path, log: Path, accelerator: str) -> None:
    """Quantise a GGUF file to the type ``kind``. Raises ColdprefixError, with the end of the log, if llama-quantize refuses it."""
    program = ensure_build(accelerator) / "llama-quantize"
    _run([program, original, outfile, kind], f"llama-quantize cannot make {kind} of {name}", log)


def _run(command: Sequence[str | Path], failure: str, log: Path) -> None:
    with open(log, "w") as output:
        code = supervise.run(command, stdout=output, stderr=subprocess.STDOUT, env=CONVERTING).returncode
    if code != 0:
        end = "\n".join(log.read_text(errors="replace").replace("\r", "\n").splitlines()[-5:])
        raise ColdprefixError(f"{failure} (exit code {code}):\n{end}\nThe whole log: {log}")
