"""The options of `hedgerow serve` that are settings of the service, or of loading its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hedgerow.cli.common import whole_numbers

if TYPE_CHECKING:
    from hedgerow.serve.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """Batches, limits, versions, and how the model is loaded. Each field is an option."""

    beam_width: Annotated[
        str,
        typer.Option(metavar="N,N", help="Beam widths to warm up: the default first. The largest is the maximum."),
    ] = "50"
    max_batch: Annotated[int, typer.Option(metavar="N", min=1, help="The largest number of requests in a batch.")] = 32
    max_wait_ms: Annotated[
        float, typer.Option(metavar="MS", min=0, help="Milliseconds that a batch waits for more requests.")
    ] = 2.0
    queue: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests that wait at most; further ones get status 429.")
    ] = 256
    deadline_ms: Annotated[
        float,
        typer.Option(metavar="MS", min=1, help="A request that waits longer gets status 504, unless it sets its own."),
    ] = 1000.0
    prompt_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="The largest number of tokens of a prompt.")
    ] = 512
    follow: Annotated[bool, typer.Option("--follow", help="Serve new versions of a live index.")] = False
    follow_seconds: Annotated[
        float, typer.Option(metavar="S", min=0.01, help="Seconds between two looks at the live index.")
    ] = 1.0
    drain_seconds: Annotated[
        float,
        typer.Option(metavar="S", min=0, help="After SIGTERM, answer for so long, but say that it is not ready."),
    ] = 0.0
    canary: Annotated[
        str | None,
        typer.Option(metavar="SHARE:VERSION", help="Let a version answer a share of the requests: 0.05:7."),
    ] = None
    allow_where: Annotated[
        bool, typer.Option("--allow-where", help="Allow SQL expressions in requests, within limits.")
    ] = False
    normalize: Annotated[str | None, typer.Option(metavar="NAME", help="As for retrieve: codes, vocab or allowed.")] = (
        None
    )
    temperature: Annotated[float, typer.Option(metavar="T", help="Divides the logits before they are normalized.")] = (
        1.0
    )
    tokens: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="The tokens of codes: '<s_{level}_{code}>'. Default: detected."),
    ] = None
    device: Annotated[str | None, typer.Option(metavar="NAME", help="The PyTorch device. Default: cpu.")] = None
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")] = "float32"
    prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text that many prompts begin with; it is computed once.")
    ] = None
    cuda_graphs: Annotated[bool, typer.Option("--cuda-graphs", help="Capture searches in CUDA graphs.")] = False
    compile_layers: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the model's layers: 12 to 30 s at the start. On a CPU, this needs g++."
        ),
    ] = False

    @property
    def settings(self) -> Settings:
        """The settings of the service.

        Raises:
            BadParameter: --beam-width or --canary is something else.
        """
        from hedgerow.serve.settings import Settings

        widths = whole_numbers(self.beam_width, "--beam-width")
        if min(widths) < 1:
            message = f"expected integers of at least 1; got {self.beam_width!r}"
            raise typer.BadParameter(message, param_hint="--beam-width")
        return Settings.of(
            widths,
            max_batch=self.max_batch,
            max_wait_ms=self.max_wait_ms,
            queue=self.queue,
            deadline_ms=self.deadline_ms,
            allow_where=self.allow_where,
            canary_share=_canary(self.canary)[0],
            drain_seconds=self.drain_seconds,
            follow_seconds=self.follow_seconds if self.follow else None,
            prompt_tokens=self.prompt_tokens,
        )

    @property
    def canary_version(self) -> int | None:
        """The version of --canary."""
        return _canary(self.canary)[1]

    @property
    def loading(self) -> dict[str, Any]:
        """The options of `hedgerow.hf.loading.load_retriever`."""
        return {
            "normalize": self.normalize,
            "temperature": self.temperature,
            "pattern": self.tokens,
            "device": self.device,
            "dtype": self.dtype,
            "prefix": self.prefix,
            "cuda_graphs": self.cuda_graphs,
            "compile": self.compile_layers,
        }


def _canary(text: str | None) -> tuple[float, int | None]:
    """Parse --canary: the share and the version."""
    if text is None:
        return 0.0, None
    share, _, version = text.partition(":")
    try:
        parsed = float(share), int(version)
    except ValueError:
        parsed = -1.0, 0
    if not (0 < parsed[0] <= 1 and parsed[1] >= 1):
        message = f"expected SHARE:VERSION, for example 0.05:7; got {text!r}"
        raise typer.BadParameter(message, param_hint="--canary")
    return parsed
