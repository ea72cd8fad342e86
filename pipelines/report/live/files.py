"""A folder as a live source."""

from __future__ import annotations

from pipelines.report.folder import Folder
from pipelines.report.live.source import final_until, named_until


class LiveFolder(Folder):
    """A folder that a stream writes to."""

    def known_until(self) -> int | None:
        """Return up to when its files go by their names, or its final windows by their rows."""
        named = named_until(path for paths in self.files().values() for path in paths)
        return final_until(self.contents().tables) if named is None else named

    def close(self) -> None:
        """Nothing is held."""
