"""Networks that have given up on classes: seen in a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

from ..text import shown
from .metrics import Metrics

ADVICE = (
    "rare or thin classes are learned with --loss.class_weights root_median_frequency, a finer --stages.stride '[4]', "
    "more epochs or another rate; see also that the masks are what they should be: fcn data check"
)


def one_class_everywhere(metrics: Metrics, classes: Sequence[str]) -> str | None:
    """A line, if all pixels of several classes were given to one."""
    found, truth = metrics.confusion.sum(0), metrics.confusion.sum(1)
    if int((truth > 0).sum()) < 2 or int((found > 0).sum()) != 1:
        return None
    return f"every pixel is labeled '{shown(classes[int(found.argmax())])}': nothing else is learned; {ADVICE}"


def classes_never_found(metrics: Metrics, classes: Sequence[str]) -> str | None:
    """A line that names the classes with pixels of which not one was found."""
    truth, correct = metrics.confusion.sum(1), metrics.confusion.diagonal()
    lost = [shown(classes[index]) for index in range(len(classes)) if truth[index] > 0 and correct[index] == 0]
    if not lost:
        return None
    names = ", ".join(f"'{name}'" for name in lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
    return f"{names}: not a pixel is found (IU 0); {ADVICE}"
