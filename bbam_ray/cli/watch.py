"""``bbam-ray watch``: a page that shows a running study, for this machine only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bbam_ray.results.redaction import redacted


def watch(
    study: Annotated[Path, typer.Argument(help="Folder or URI <results>/<dataset>/<study>.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8266,
) -> int:
    """Show a study while it runs, at an address of this machine only; Ctrl-C stops it."""
    from bbam_ray.commands import watch as command

    server = command.watch(study, port)
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{redacted(str(study))}: http://{command.HOST}:{server.server_port}  (Ctrl-C stops it)",
        markup=False,
    )
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        console.print("stopped")
    finally:
        server.server_close()
    return 0
