"""Other engines that run networks on CPUs, where they are installed: ``pip install mnn ncnn pnnx openvino onnxruntime
onnx``. What users would take instead; each is told to compute in float32."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.cases import Candidate

Network = Callable[[], Tensor]


def candidates(net: nn.Module, image: Tensor) -> list[Candidate]:
    """``net(image)`` by every engine that is here; what an engine needs is made at its first call."""
    engines = {"MNN": _mnn, "ncnn": _ncnn, "ONNX Runtime": _onnxruntime, "OpenVINO": _openvino}
    needs = {"MNN": ("MNN", "onnx"), "ncnn": ("ncnn", "pnnx"), "ONNX Runtime": ("onnxruntime", "onnx")}
    return [
        Candidate(name, _at_first_call(functools.partial(build, net, image)))
        for name, build in engines.items()
        if all(map(_installed, needs.get(name, ("openvino", "onnx"))))
    ]


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _at_first_call(build: Callable[[], Network]) -> Callable[[], tuple[Tensor]]:
    once = functools.cache(build)
    return lambda: (once()(),)


def _onnx(net: nn.Module, image: Tensor, folder: str) -> Path:
    path = Path(folder) / "net.onnx"
    torch.onnx.export(net, (image,), str(path), dynamo=False, opset_version=13)
    return path


def _mnn(net: nn.Module, image: Tensor) -> Network:
    mnn: Any = importlib.import_module("MNN")
    with tempfile.TemporaryDirectory() as folder:
        source, converted = _onnx(net, image, folder), Path(folder) / "net.mnn"
        command = [sys.executable, "-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--bizCode", "bench"]
        command += ["--modelFile", str(source), "--MNNModel", str(converted)]
        subprocess.run(command, check=True, capture_output=True)
        engine = mnn.Interpreter(str(converted))
    options = {"numThread": torch.get_num_threads(), "precision": "high", "backend": "CPU"}
    session = engine.createSession(options)
    kind, layout = mnn.Halide_Type_Float, mnn.Tensor_DimensionType_Caffe
    engine.getSessionInput(session).copyFrom(mnn.Tensor(tuple(image.shape), kind, image.numpy().copy(), layout))

    def run() -> Tensor:
        engine.runSession(session)
        output = engine.getSessionOutput(session)
        shape = output.getShape()
        result = mnn.Tensor(shape, kind, np.zeros(shape, np.float32), layout)
        output.copyToHostTensor(result)
        return torch.from_numpy(np.array(result.getNumpyData()).reshape(shape))

    return run


def _ncnn(net: nn.Module, image: Tensor) -> Network:
    ncnn: Any = importlib.import_module("ncnn")
    pnnx: Any = importlib.import_module("pnnx")
    engine = ncnn.Net()
    engine.opt.num_threads = torch.get_num_threads()
    for option in ("use_bf16_storage", "use_fp16_storage", "use_fp16_packed", "use_fp16_arithmetic"):
        setattr(engine.opt, option, False)
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "net.pt"
        torch.jit.trace(net, image).save(str(traced))
        shape = ",".join(map(str, image.shape))
        command = [pnnx.EXEC_PATH, str(traced), f"inputshape=[{shape}]", "fp16=0"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        engine.load_param(str(Path(folder) / "net.ncnn.param"))
        engine.load_model(str(Path(folder) / "net.ncnn.bin"))
    pixels = ncnn.Mat(image[0].numpy())

    def run() -> Tensor:
        extractor = engine.create_extractor()
        extractor.input("in0", pixels)
        return torch.from_numpy(np.array(extractor.extract("out0")[1]))[None]

    return run


def _onnxruntime(net: nn.Module, image: Tensor) -> Network:
    engine: Any = importlib.import_module("onnxruntime")
    options = engine.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = str(_onnx(net, image, folder))
        session = engine.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pixels = {session.get_inputs()[0].name: image.numpy()}
    return lambda: torch.from_numpy(session.run(None, pixels)[0])


def _openvino(net: nn.Module, image: Tensor) -> Network:
    engine: Any = importlib.import_module("openvino")
    threads = torch.get_num_threads()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    with tempfile.TemporaryDirectory() as folder:
        model = engine.Core().compile_model(str(_onnx(net, image, folder)), "CPU", options)
    pixels = image.numpy()
    return lambda: torch.from_numpy(model(pixels)[0])
