"""How long calls take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from tqdm import tqdm


def take_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, title: str
) -> dict[str, list[float]]:
    """Seconds of ``repeats`` runs of each call, with progress shown.

    Calls take turns, so that a slow moment of the machine hits all of them. Each is run twice before, uncounted: what
    is prepared or compiled on first use is ready then.
    """

    def run(name: str) -> float:
        _synchronize(device)
        start = time.perf_counter()
        calls[name]()
        _synchronize(device)
        return time.perf_counter() - start

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with tqdm(total=len(calls) * (repeats + 2), desc=title, unit="run", dynamic_ncols=True) as progress:
        for round_ in range(-2, repeats):
            for name in calls:
                progress.set_postfix_str(name if round_ >= 0 else f"{name}, warming up")
                taken = run(name)
                if round_ >= 0:
                    seconds[name].append(taken)
                progress.update()
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
