"""The files that ``fcn predict`` writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..data import Source
    from ..data.files import Levels
    from ..data.tasks import Task


class Results:
    """Label maps and overlays below the folder ``out``."""

    def __init__(self, out: Path, tasks: Mapping[str, Task], levels: Levels | None, overlay: bool) -> None:
        self.out, self.tasks, self.levels, self.overlay = out, tasks, levels, overlay

    def paths(self, name: str) -> list[tuple[Path, Path]]:
        """Label map and overlay of each task of the image ``name``."""
        from ..data.tasks import underscored

        stems = [underscored(name, task) for task in self.tasks]
        return [(self.out / f"{stem}.png", self.out / f"{stem}_overlay.png") for stem in stems]

    def check(self, sources: Sequence[Source], inputs: Iterable[str | os.PathLike[str]]) -> None:
        """Before anything is written: no result takes the place of a file that is read, of another result, or of a file
        that is no result of an earlier run. Raises ``ConfigError``."""
        from ..data.files import is_result
        from ..errors import ConfigError
        from ..files import check_outputs

        outputs = [
            path
            for source in sources
            for name in source.names()
            for pair in self.paths(name)
            for path in pair[: 1 + self.overlay]
        ]
        check_outputs(outputs, [*inputs, *(source.path for source in sources)])
        for path in outputs:
            self._check_place(path)
            if path.exists() and not is_result(path):
                raise ConfigError(
                    f"{path}: a file is there that fcn predict did not write, and a result would take its place; give "
                    "another folder with --out"
                )
        self.out.mkdir(parents=True, exist_ok=True)

    def _check_place(self, path: Path) -> None:
        from ..errors import ConfigError

        for parent in path.parents:
            if parent.exists():
                if not parent.is_dir():
                    raise ConfigError(f"{parent}: a file, where a folder for results is wanted (--out)")
                return

    def write(self, name: str, image: np.ndarray, labels: np.ndarray) -> None:
        """``labels`` ``[(T, )H, W]`` of an image."""
        import numpy as np

        from ..data import write_labels
        from ..data.files import eight_bits
        from ..evaluation.overlays import save_overlay

        colors = eight_bits(image[:, :, :3], self.levels).astype(np.uint8, copy=False)
        maps = labels.reshape(-1, *labels.shape[-2:])  # one for each task
        for (map_path, overlay_path), meaning, own in zip(self.paths(name), self.tasks.values(), maps, strict=True):
            write_labels(map_path, own, meaning.palette)
            if self.overlay:
                save_overlay(overlay_path, colors, own, meaning.classes, meaning.palette)
