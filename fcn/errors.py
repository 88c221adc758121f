"""What goes wrong for reasons that a user can change: the messages name the file, key or option."""


class ConfigError(ValueError):
    """A recipe or an option that cannot be used; the message says which key and what is wanted."""


class DataError(ValueError):
    """A file or a data set that cannot be used; the message names the file."""


class MissingSplitError(DataError):
    """A split that the data set does not have here."""


class NotFiniteError(ValueError):
    """Training whose loss or weights are no finite numbers any more; the message names the step and the rate."""


class Interrupted(Exception):  # noqa: N818  (a request, not an error)
    """Training stopped by Ctrl-C or SIGTERM; the checkpoint is written."""


EXTRAS = {**dict.fromkeys(("onnx", "onnx_ir", "onnxscript", "onnxruntime"), "onnx"), "huggingface_hub": "hub"}
"""The extra of ``pyproject.toml`` that brings a module which not everybody needs."""


def what_to_install(error: ModuleNotFoundError) -> str | None:
    """Says it of a package that is not there; None of a module of this program."""
    module = (error.name or "").partition(".")[0]
    if module in ("", "fcn", "fcn_kernels"):
        return None
    if module in EXTRAS:
        return f"{module}, which is not installed: pip install -e '.[{EXTRAS[module]}]'"
    package = {"PIL": "pillow", "yaml": "pyyaml"}.get(module, module.replace("_", "-"))
    return f"{package}, which is not installed: pip install {package} (all that fcn needs: pip install -e .)"
