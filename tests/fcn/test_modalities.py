"""Color with depth or HHA, from a miniature NYUDv2 on disk: training from trained networks, and prediction."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.io import savemat

from fcn.cli import main
from fcn.data import KINDS, read_labels, voc_palette
from fcn.data.nyud import NYUD_CLASSES
from fcn.data.preprocessing import IMAGENET, Preprocessing
from fcn.errors import ConfigError, DataError, Interrupted
from fcn.experiments.trials import described
from fcn.inference.predictor import Predictor
from fcn.networks.models import FCN, ModelConfig, build_model, late_fusion, parameter_groups
from fcn.recipes.config import load_recipe
from fcn.training.run import train
from fcn.training.task import SegmentationTask
from fcn.weights import load_weights, save_weights, start_from

RECIPE = """
data: {{kind: nyud_color_hha, root: {root}, val_split: test, preprocessing: published}}
model: {{backbone: small, modalities: [color, hha]}}
stages: {{stride: [32, 16], epochs: [1, 1], lr: [1.0e-6, 1.0e-6]}}
trainer: {{run_dir: {run_dir}}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of 40 x 33 in the format of the FCN authors' NYUDv2: train 5001 and 5002, test 5003."""
    root = tmp_path_factory.mktemp("nyud")
    random = np.random.default_rng(0)
    for folder in ("data/images", "data/hha", "data/depth", "segmentation"):
        (root / folder).mkdir(parents=True)
    for name in ("img_5001", "img_5002", "img_5003"):
        for folder in ("images", "hha"):
            pixels = random.integers(0, 256, (33, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"data/{folder}/{name}.png")
        depth = random.integers(500, 9000, (33, 40)).astype(np.uint16)
        depth[:3] = 0  # nothing was measured there
        Image.fromarray(depth).save(root / f"data/depth/{name}.png")
        stored = random.integers(0, 41, (33, 40)).astype(np.uint8)
        savemat(root / f"segmentation/{name}.mat", {"segmentation": stored})
    (root / "train.txt").write_text("5001\n5002\n")
    (root / "test.txt").write_text("5003\n")
    return root


def random_network(seed: int, **options: Any) -> FCN:
    torch.manual_seed(seed)
    model = build_model(ModelConfig(**{"backbone": "small", "stride": 32, "classes": 40, **options}))
    for name, parameter in model.named_parameters():
        if "score" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def save(path: Path, model: FCN, preprocessing: Preprocessing) -> Path:
    classes = model.config.classes
    save_weights(path, model, classes=NYUD_CLASSES[:classes], palette=voc_palette(classes), preprocessing=preprocessing)
    return path


@pytest.fixture(scope="module")
def networks(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of FCN-32s on color and on HHA."""
    folder = tmp_path_factory.mktemp("networks")
    paths = {}
    for seed, (name, kind) in enumerate({"color": "nyud", "hha": "nyud_hha"}.items()):
        published = KINDS[kind].load(root, "train").published
        assert published is not None
        paths[name] = save(folder / f"{name}.safetensors", random_network(seed), published)
    return paths


@pytest.fixture
def recipe_file(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(root=root, run_dir=tmp_path / "run"))
    return path


@pytest.fixture
def initial(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, torch.Tensor]]:
    """State of the network at the start of each stage, by stride."""
    states: dict[int, dict[str, torch.Tensor]] = {}

    def note(task: SegmentationTask) -> None:
        states[task.model.config.stride] = {name: t.clone() for name, t in task.model.state_dict().items()}

    monkeypatch.setattr(SegmentationTask, "on_train_start", note)
    return states


def test_two_trained_networks_become_one_that_trains_in_stages(
    root: Path, recipe_file: Path, initial: dict[int, dict[str, torch.Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line: color, then HHA, then both."""
    folder = recipe_file.parent
    for name, kind in {"color": "nyud", "hha": "nyud_hha"}.items():
        alone = [f"--data.kind={kind}", "--model.modalities=[]", f"--trainer.run_dir={folder / name}"]
        stage = ["--stages.stride=[32]", "--stages.epochs=[1]", "--stages.lr=[1e-5]"]
        assert main(["train", str(recipe_file), *alone, *stage]) == 0
    files = {name: folder / name / "best.safetensors" for name in ("color", "hha")}
    options = [f"--model.init_from.{name}={path}" for name, path in files.items()]
    assert main(["train", str(recipe_file), *options]) == 0
    expected = late_fusion({name: load_weights(path).model for name, path in files.items()}).state_dict()
    assert expected["head.score_fr.weight"].any()
    assert initial[32].keys() == expected.keys()
    assert all(torch.equal(initial[32][name], tensor) for name, tensor in expected.items())
    assert set(initial[16]) - set(initial[32]) == {"head.score_pool4.weight", "head.score_pool4.bias"}
    weights = folder / "run/best.safetensors"
    assert load_weights(weights).model.config.modalities == ("color", "hha")
    capsys.readouterr()
    data = ["--data.kind=nyud_color_hha", f"--data.root={root}"]
    assert main(["evaluate", str(weights), *data]) == 0
    assert "nyud_color_hha test, 1 images" in capsys.readouterr().out


@pytest.mark.parametrize("stride", [32, 16])
def test_resumed_run_of_two_modalities_ends_with_the_same_weights(
    recipe_file: Path, networks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    """What it started from is gone by then."""
    files = {name: Path(shutil.copy(path, tmp_path / path.name)) for name, path in networks.items()}
    options = [f"--model.init_from.{name}={path}" for name, path in files.items()]
    expected = train(load_recipe(recipe_file, options))
    run = tmp_path / "second"

    def press_ctrl_c(task: SegmentationTask, batch: Any, batch_idx: int) -> Any:
        if task.model.config.stride == stride and batch_idx == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return original(task, batch, batch_idx)

    original = SegmentationTask.training_step
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", press_ctrl_c)
        with pytest.raises(Interrupted):
            train(load_recipe(recipe_file, [*options, f"--trainer.run_dir={run}"]))
    for path in files.values():
        path.unlink()
    assert main(["train", "--resume", str(run)]) == 0
    one, two = load_file(expected), load_file(run / "best.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_network_of_two_modalities_starts_the_next(networks: dict[str, Path], tmp_path: Path) -> None:
    """FCN-16s from a file of FCN-32s."""
    loaded = {name: load_weights(path) for name, path in networks.items()}
    fused = late_fusion({name: weights.model for name, weights in loaded.items()})
    color, hha = (weights.preprocessing for weights in loaded.values())
    preprocessing = Preprocessing((*color.mean, *hha.mean), (1.0,) * 6, "bgr", 1.0)
    path = save(tmp_path / "fused.safetensors", fused, preprocessing)
    model = build_model(ModelConfig("small", 16, 40, modalities=("color", "hha"), fusion="mean")).eval()
    start_from(model, str(path), preprocessing)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in fused.state_dict().items())
    assert not state["head.score_pool4.weight"].any()


def test_other_preprocessing_is_a_warning(networks: dict[str, Path]) -> None:
    model = build_model(ModelConfig("small", 32, 40))
    with pytest.warns(UserWarning, match="trained on images prepared by .*92.318.*, here it is .*0.406"):
        start_from(model, str(networks["color"]), IMAGENET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.init_from={color: COLOR}"], "modalities color; those of the network are color, hha"),
        (["--model.init_from={color: COLOR, hha: gone.safetensors}"], "gone.safetensors: no such file"),
        (["--model.init_from={color: COLOR, hha: a.caffemodel}"], r"a\.caffemodel: a weight file of this program"),
        (["--model.init_from=COLOR"], r"color\.safetensors: .* modalities \(\) instead of \('color', 'hha'\)"),
        (["--model.init_from={color: COLOR, hha: HHA}", "--model.pad=official"], "pad 'same' instead of 'official'"),
        (["--model.init_from={color: COLOR, hha: FEWER}"], r"fewer\.safetensors: .* classes 5 instead of 40"),
        (["--model.init_from={color: COLOR, hha: FINER}"], "late_fusion: .* stride is .*32.*16"),
        (["--model.modalities=[]", "--model.init_from={color: COLOR}"], "those of the network are none"),
        (["--data.kind=nyud_color_depth"], "color, hha see 3 channels each, and the data have 4"),
        (["--model.modalities=[a, a]"], "modalities must be different names"),
    ],
)
def test_what_cannot_start_a_network_is_explained(
    options: list[str], message: str, recipe_file: Path, networks: dict[str, Path]
) -> None:
    folder = recipe_file.parent
    fewer = save(folder / "fewer.safetensors", random_network(0, classes=5), IMAGENET)
    finer = save(folder / "finer.safetensors", random_network(0, stride=16), IMAGENET)
    files = {"COLOR": networks["color"], "HHA": networks["hha"], "FEWER": fewer, "FINER": finer}
    for name, path in files.items():
        options = [option.replace(name, str(path)) for option in options]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(load_recipe(recipe_file, options))


def test_a_trunk_and_a_network_are_not_both_a_start(recipe_file: Path) -> None:
    with pytest.raises(ConfigError, match="one of them must be null"):
        load_recipe(recipe_file, ["--model.pretrained=a", "--model.init_from=b"])


def test_an_experiment_names_what_its_networks_start_from(recipe_file: Path) -> None:
    recipe = load_recipe(
        recipe_file, ["--model.init_from.color=runs/a.safetensors", "--model.init_from.hha=b.safetensors"]
    )
    assert "small, starting from a.safetensors and b.safetensors; epochs [1, 1]" in described(recipe)


# --- Prediction. ---


@pytest.fixture(params=["depth", "hha"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def weights(root: Path, tmp_path: Path, kind: str) -> Path:
    """A network of color and depth in one trunk, or of color and HHA in two."""
    options = {"depth": {"in_channels": 4}, "hha": {"modalities": ("color", "hha")}}[kind]
    published = KINDS[f"nyud_color_{kind}"].load(root, "train").published
    assert published is not None
    model = random_network(5, stride=16, pad="official", **options)
    if kind == "depth":
        next(model.backbone.parameters()).data[:, 3] *= 100  # logarithms are small numbers beside colors
    return save(tmp_path / "weights.safetensors", model, published)


@pytest.fixture
def labels(root: Path, weights: Path, kind: str) -> dict[str, np.ndarray]:
    """What the network makes of the images as the data set reads them."""
    predictor = Predictor(weights, precision="float32")
    data = [KINDS[f"nyud_color_{kind}"].load(root, split) for split in ("train", "test")]
    samples = [split[index] for split in data for index in range(len(split))]
    return {sample["name"]: predictor(sample["image"]) for sample in samples}


def test_every_form_of_a_pair_gives_one_answer(
    root: Path, weights: Path, kind: str, labels: dict[str, np.ndarray]
) -> None:
    expected = labels["img_5001"]
    assert len(np.unique(expected)) > 2
    color, beside = (root / f"data/{folder}/img_5001.png" for folder in ("images", kind))
    predictor = Predictor(weights, precision="float32")
    opened = [Image.open(path) for path in (color, beside)]
    for pair in ((color, beside), (str(color), str(beside)), tuple(opened), tuple(map(np.asarray, opened))):
        np.testing.assert_array_equal(predictor(pair), expected)
    several = predictor([(root / f"data/images/{name}.png", root / f"data/{kind}/{name}.png") for name in labels])
    assert all(np.array_equal(found, labels[name]) for name, found in zip(labels, several, strict=True))
    changed = np.asarray(opened[1])[::-1]
    assert (predictor((color, changed)) != expected).any()  # it is seen
    tiled = Predictor(weights, precision="float32", tile=32)((color, beside))
    assert (tiled == expected).mean() > 0.999


def test_other_forms_are_explained(root: Path, weights: Path, kind: str, networks: dict[str, Path]) -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    predictor = Predictor(weights)
    with pytest.raises(DataError, match=rf"a pair \(image, {kind}\) or an array \[H, W, [46]\] is wanted"):
        predictor(image)
    with pytest.raises(DataError, match=f"{kind}: 9x20, and the image beside it is 20x20"):
        predictor((image, np.zeros((20, 9), np.uint16) if kind == "depth" else image[:, :9]))
    with pytest.raises(DataError, match=r"several images are a list.* this network sees 3 channels"):
        Predictor(networks["color"])((image, image))
    if kind == "depth":
        with pytest.raises(DataError, match="depth must be 16-bit millimeters in one channel, got uint8"):
            predictor((image, image[:, :, 0]))


def test_predict_takes_what_is_beside_the_images_from_a_folder(
    root: Path,
    weights: Path,
    kind: str,
    labels: dict[str, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of six images one has no partner, one a damaged one, and one a partner of another size: the rest is labeled."""
    images, beside, out = tmp_path / "images", tmp_path / "beside", tmp_path / "out"
    shutil.copytree(root / "data/images", images)
    shutil.copytree(root / f"data/{kind}", beside)
    for name in ("alone", "damaged", "larger"):
        shutil.copy(images / "img_5001.png", images / f"{name}.png")
    (beside / "damaged.png").write_bytes(b"junk")
    Image.open(beside / "img_5001.png").resize((41, 33)).save(beside / "larger.png")
    command = ["predict", str(weights), str(images), f"--{kind}", str(beside), "--out", str(out)]
    assert main([*command, "--precision", "float32", "--batch", "2"]) == 1
    printed = capsys.readouterr()
    for message in (f"{kind} of 'alone' is missing", "damaged.png: cannot read", "larger.png: 41x33, and the image"):
        assert message in printed.err
    assert "3 of 6 files, 3 images labeled in float32" in printed.out
    ends = (".png", "_overlay.png")
    assert {path.name for path in out.iterdir()} == {f"{name}{end}" for name in labels for end in ends}
    for name, expected in labels.items():
        np.testing.assert_array_equal(read_labels(out / f"{name}.png", 40), expected)


def test_predict_says_which_folder_is_wanted(
    root: Path, weights: Path, kind: str, networks: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    image, other = root / "data/images/img_5001.png", {"depth": "hha", "hha": "depth"}[kind]
    for arguments, message in {
        (str(weights),): f"this network sees color and {kind}; say where that is: --{kind} FOLDER",
        (str(weights), f"--{other}", str(root)): f"say where that is: --{kind} FOLDER",
        (str(weights), f"--{kind}", str(root / "gone")): "gone: folder not found",
        (str(networks["color"]), f"--{kind}", str(root)): f"no images beside those it labels: no --{kind}",
    }.items():
        assert main(["predict", *arguments, str(image), "--out", str(weights.parent / "out")]) == 2
        assert message in capsys.readouterr().err


def test_a_step_of_late_fusion_is_that_of_the_published_network() -> None:
    """There two convolutions score a modality each and their mean is taken; here one scores the joined maps."""
    alone = {name: random_network(seed) for seed, name in enumerate(("color", "hha"))}
    fused = late_fusion(alone).train()
    images, target = torch.randn(1, 6, 40, 33), torch.randint(40, (1, 40, 33))
    parts = images.split(3, 1)
    options = {"lr": 0.1, "weight_decay": 0.01}

    def step(groups: list[dict[str, Any]], scores: torch.Tensor) -> None:
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        torch.nn.functional.cross_entropy(scores, target).backward()
        optimizer.step()

    for network in alone.values():
        network.eval()  # no dropout
    groups = [group for network in alone.values() for group in parameter_groups(network, **options)]
    step(groups, sum(network(part) for network, part in zip(alone.values(), parts, strict=True)) / 2)
    step(parameter_groups(fused, **options), fused.eval()(images))
    expected = late_fusion(alone).state_dict()
    for name, tensor in fused.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6, msg=name)
