"""Does the engine compute the model at all? Its answer beside the one that transformers computed from the same files (`reference.json`).

A cold answer that equals a warm one proves nothing where both are wrong in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coldprefix.engines.contract import Session
from coldprefix.errors import Refused
from coldprefix.files import read_json
from coldprefix.measure.answers import distance

FILE = "reference.json"  # in a model's folder, where its source has made one (workflow/scripts/make_shapes.py)
# Of what another prompt makes. An engine that computes in 16 bits is off by up to a third of it where a router of experts stands near a tie.
TOLERANCE = 0.5


def check_reference(session: Session, folder: Path, gguf_type: str | None = None) -> dict[str, Any] | None:
    """Compare the engine's next token after a short prompt with the reference in the model's folder, which is that of the weights as they were made:
    where ``gguf_type``, of the file that the engine loads, says that they were quantised since, the difference is only recorded. (Random weights do
    not survive it: 4 bits were seen to change more than another prompt.)

    Returns:
        {"difference", "of_another_prompt"} of log-probabilities; None where the model has no reference or the engine cannot say.

    Raises:
        Refused: the engine computes something else than the model.
    """
    if not (folder / FILE).exists():
        return None
    told = read_json(folder / FILE)
    found = session.next_token(told["prompt"])
    if found is None:
        return None
    wanted, other = ({int(token): float(value) for token, value in told[key].items()} for key in ("top", "other_top"))
    seen, scale = distance(wanted, found.logprobs), distance(wanted, other)
    if seen > TOLERANCE * scale and gguf_type in (None, "F16"):
        raise Refused(
            f"the engine does not compute the model: the log-probabilities of the next token differ by {seen:.3g} from those that transformers "
            f"{told['transformers']} computed from the same files ({told['dtype']}); another prompt makes a difference of {scale:.3g}. Of the 20 "
            f"likeliest tokens {len(wanted.keys() & found.logprobs.keys())} are the same. Leave this phase out for this model"
        )
    return {"difference": seen, "of_another_prompt": scale}
