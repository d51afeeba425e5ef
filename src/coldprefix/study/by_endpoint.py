"""What an entry of `endpoints` brings with it: a model of its name, which is that of its phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coldprefix.engines.endpoint.settings import VOCABULARY, EndpointSettings
from coldprefix.errors import ColdprefixError

CONTEXT = EndpointSettings.model_fields["context_tokens"].default


def with_endpoints(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the models of its endpoints. Raises ColdprefixError where a model has an endpoint's name."""
    result = dict(values)
    entries = result.get("endpoints")
    models, phase_models = (result.get(key) or {} for key in ("models", "phase_models"))
    if not isinstance(entries, Mapping) or not isinstance(models, Mapping) or not isinstance(phase_models, Mapping):
        return result  # the checks say what is wrong
    for name, entry in entries.items():
        if name in models or name in phase_models:
            raise ColdprefixError(f"endpoints.{name}: that is the name of a model, or has one in phase_models; choose another")
        if isinstance(entry, Mapping) and isinstance(entry.get("url"), str):
            context = entry.get("context_tokens", CONTEXT)
            positions = max(context, 64) if isinstance(context, int) else CONTEXT
            model = {
                "source": "endpoint",
                "url": entry["url"],
                "serves": entry.get("model"),
                "positions": positions,
                "vocabulary": VOCABULARY,
            }
            models, phase_models = {**models, name: model}, {**phase_models, name: name}
    return result | ({"models": models, "phase_models": phase_models} if entries else {})
