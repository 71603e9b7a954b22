"""Settings of the plug-in, from environment variables: vLLM has several processes, and all of them inherit these."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.errors import ArgumentError
from hedgerow.serve.settings import Settings

INDEX, SETS_FOLDER = "HEDGEROW_INDEX", "HEDGEROW_SETS_FOLDER"


def _widths(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", text):
        raise ValueError("expected integers of at least 1, for example 50,128")
    return tuple(map(int, text.split(",")))


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise ValueError("expected an integer of at least 1")
    return int(text)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError("expected a number above 0")
    return value


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("expected 0 or 1")
    return text == "1"


def _normalize(text: str) -> str:
    if text not in ("codes", "vocab", "allowed"):
        raise ValueError("expected codes, vocab or allowed")
    return text


# The variable of each setting, and what reads it.
READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "index": (INDEX, Path),
    "rules": ("HEDGEROW_RULES", Path),
    "pattern": ("HEDGEROW_TOKENS", str),
    "normalize": ("HEDGEROW_NORMALIZE", _normalize),
    "temperature": ("HEDGEROW_TEMPERATURE", _positive),
    "beam_widths": ("HEDGEROW_BEAM_WIDTH", _widths),
    "max_tokens": ("HEDGEROW_MAX_TOKENS", _count),
    "queue": ("HEDGEROW_QUEUE", _count),
    "deadline_ms": ("HEDGEROW_DEADLINE_MS", _positive),
    "follow_seconds": ("HEDGEROW_FOLLOW_SECONDS", _positive),
    "allow_where": ("HEDGEROW_ALLOW_WHERE", _flag),
    "codes_in_text": ("HEDGEROW_CODES_IN_TEXT", _flag),
}


@dataclass(frozen=True)
class PluginSettings:
    """The settings of the plug-in. Empty variables count as not set.

    Attributes:
        index: a saved index or a live index (HEDGEROW_INDEX).
        rules: a TOML file of named sets (HEDGEROW_RULES).
        pattern: the form of the tokens of codes (HEDGEROW_TOKENS). None: tokens.json of the model, or detected.
        normalize: as for `Retriever` (HEDGEROW_NORMALIZE). None: that of tokens.json, or "codes".
        temperature: divides the logits (HEDGEROW_TEMPERATURE).
        beam_widths: the default beam width, and others; the largest is the maximum (HEDGEROW_BEAM_WIDTH).
        max_tokens: the largest number of beams times codes of requests that are searched together
            (HEDGEROW_MAX_TOKENS).
        queue: requests that are inside vLLM at the same time; further ones are refused (HEDGEROW_QUEUE).
        deadline_ms: milliseconds until a request must be answered, unless it sets its own (HEDGEROW_DEADLINE_MS).
        follow_seconds: seconds between two looks at a live index (HEDGEROW_FOLLOW_SECONDS). None: it is not followed.
        allow_where: whether requests may have SQL expressions (HEDGEROW_ALLOW_WHERE).
        codes_in_text: as for `CatalogLogitsProcessor` (HEDGEROW_CODES_IN_TEXT).
    """

    index: Path
    rules: Path | None = None
    pattern: str | None = None
    normalize: str | None = None
    temperature: float = 1.0
    beam_widths: tuple[int, ...] = (50,)
    max_tokens: int = 16_384
    queue: int = 1_024
    deadline_ms: float = 10_000.0
    follow_seconds: float | None = None
    allow_where: bool = False
    codes_in_text: bool = False

    def of_service(self, prompt_tokens: int) -> Settings:
        """The settings of the service that checks requests.

        Args:
            prompt_tokens: the largest number of tokens of a prompt.
        """
        return Settings.of(
            self.beam_widths,
            queue=self.queue,
            deadline_ms=self.deadline_ms,
            allow_where=self.allow_where,
            follow_seconds=self.follow_seconds,
            probe_every=0,
            prompt_tokens=prompt_tokens,
        )


def is_configured(environment: Mapping[str, str] | None = None) -> bool:
    """Whether an index is named. Without one, the plug-in changes nothing in vLLM."""
    return bool((os.environ if environment is None else environment).get(INDEX))


def read_settings(environment: Mapping[str, str] | None = None) -> PluginSettings:
    """Read the settings.

    Args:
        environment: the variables. Default: those of the process.

    Raises:
        ArgumentError: no index is named, or a variable has an invalid value.
    """
    environment = os.environ if environment is None else environment
    if not is_configured(environment):
        raise ArgumentError(
            f"set {INDEX} to a saved index or a live index: {INDEX}=items.hedgerow vllm serve MODEL ..."
        )
    found: dict[str, Any] = {}
    for name, (variable, read) in READERS.items():
        text = environment.get(variable, "")
        if not text:
            continue
        try:
            found[name] = read(text)
        except ValueError as error:
            raise ArgumentError(f"{variable}={text!r} is invalid: {error}.") from None
    return PluginSettings(**found)
