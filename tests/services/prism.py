"""The Prism runner, built from the Go module of Beam."""

from __future__ import annotations

from pathlib import Path

from pipelines.prism import VERSION, built
from tests.services.provision import call, program, provide

NAME = "the Prism runner"

_PACKAGE = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{VERSION}"


def provision() -> Path:
    """Return the path of the binary, built at the first call (a minute or two).

    The binary of `make services` is used even if PATH holds another, whose version nobody knows.

    Raises:
        Missing: Go is missing, or the build fails.
    """
    binary = built()
    provide(binary.parent.name, _build)
    return binary


def _build(folder: Path) -> None:
    go = program(NAME, "go", "Go 1.24 or newer")
    # No C compiler is needed, and the binary runs on any Linux of this architecture.
    call(NAME, [go, "install", _PACKAGE], {"GOBIN": str(folder), "CGO_ENABLED": "0"})
