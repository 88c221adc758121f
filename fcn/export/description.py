"""What goes along with an exported graph: what its input must be and what its labels mean."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from ..data.preprocessing import Preprocessing
from ..data.tasks import Task
from ..weights import Weights

FORMAT = "fcn-export-1"


@dataclass(frozen=True)
class Description:
    """Of a graph; texts by name in the file (``properties``), lists as JSON."""

    network: str
    meaning: Task
    preprocessing: Preprocessing
    """For information: it is inside the graph. 16-bit images must be brought to 8 bits at its ``levels`` before."""
    smallest_image: int
    license: str = ""
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    """What the weight file says of its origin (``Weights.extra``)."""

    @classmethod
    def of(cls, weights: Weights, license: str = "") -> Description:
        config = weights.model.config
        network = f"FCN-{config.stride}s on {config.backbone}, pad {config.pad}"
        meaning, notes = Task(weights.classes, weights.palette), dict(weights.extra)
        license = license or notes.pop("license", "")
        return cls(network, meaning, weights.preprocessing, weights.model.smallest_image, license, notes)

    def properties(self) -> dict[str, str]:
        return {
            "format": FORMAT,
            "network": self.network,
            "classes": json.dumps(self.meaning.classes),
            "palette": json.dumps(self.meaning.palette),
            "preprocessing": json.dumps(dataclasses.asdict(self.preprocessing)),
            "smallest_image": str(self.smallest_image),
            "license": self.license,
            "notes": json.dumps(self.notes),
        }

    @classmethod
    def read(cls, properties: Mapping[str, str]) -> Description:
        """The inverse of ``properties``. Raises ``ValueError`` for others."""
        if properties.get("format") != FORMAT:
            raise ValueError(f"not written by 'fcn export': its properties have no format {FORMAT!r}")
        try:
            options = json.loads(properties["preprocessing"])
            options.update(mean=tuple(options["mean"]), std=tuple(options["std"]))
            colors = [(int(r), int(g), int(b)) for r, g, b in json.loads(properties["palette"])]
            return cls(
                properties["network"],
                Task([str(name) for name in json.loads(properties["classes"])], colors),
                Preprocessing(**options),
                int(properties["smallest_image"]),
                properties["license"],
                dict(json.loads(properties["notes"])),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"damaged properties: {type(error).__name__}: {error}") from None
