"""The example as a user runs it, on images and weights made up here."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn


def tables(printed: str) -> list[dict[str, dict[str, str]]]:
    """The printed tables: by row and column."""
    found: list[dict[str, dict[str, str]]] = []
    for line in printed.splitlines():
        words = [word for word in line.split("  ") if word.strip()]
        if line.split()[:1] == ["fd"]:
            found.append({})
            head = line.split()
        elif found and len(words) == len(head) + 1:
            found[-1][words[0].strip()] = dict(zip(head, (word.strip() for word in words[1:]), strict=True))
    return found


@pytest.fixture
def script(example):
    return example("invent_or_copy")


@pytest.fixture
def planted(tmp_path, script):
    """Scenes of smooth images, and random weights in the published format."""
    draw = np.random.default_rng(0)
    for folder, scenes in (("train", 12), ("test", 4)):
        (tmp_path / folder).mkdir()
        for scene in range(scenes):
            for place in range(8):
                coarse = draw.integers(0, 256, (5, 5), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
                image.save(tmp_path / folder / f"{folder}_{scene:02}-{place:04}.png")
    torch.manual_seed(0)
    network = script.ResNet20()
    network.linear = nn.Linear(64, 10)
    state = {f"module.{name}": values for name, values in network.state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": state}, tmp_path / "weights.th")


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_planted_generators_come_out_right(run):
    printed, _ = run("invent_or_copy.py", "--train", "train", "--test", "test", "--weights", "weights.th")
    vectors, images = tables(printed)

    def figure(name: str, column: str) -> float:
        return float(vectors[name][column])

    assert figure("iid", "closer_to_train") == pytest.approx(0.5, abs=0.05)
    assert figure("iid", "copy_fraction") < 0.01
    assert abs(figure("iid", "copying_test")) < 3
    assert figure("10 % copies", "copy_fraction") == pytest.approx(0.1, abs=0.01)
    assert figure("noisy copies", "copy_fraction") > 0.9
    assert figure("noisy copies", "closer_to_train") > 0.95
    assert figure("noisy copies", "copying_test") < -10
    assert figure("noisy copies", "fd") < figure("iid", "fd")  # by the distance alone the copies are the better ones
    for column in ("closer_to_train", "copy_fraction", "authenticity"):  # a Gaussian's mirror image is a fresh one
        assert figure("mirrored copies", column) == pytest.approx(figure("iid", column), abs=0.06)
    # Shrinking passes for copying by these two, but has lost its variety.
    assert figure("shrunk", "authenticity") < figure("iid", "authenticity") - 0.2
    assert figure("shrunk", "copying_test") < -10
    assert figure("shrunk", "recall") < 0.3
    assert figure("collapsed", "coverage") < 0.05

    assert list(images) == list(vectors)
    assert float(images["10 % copies"]["copy_fraction"]) >= 0.08
    assert float(images["iid"]["copy_fraction"]) < 0.05
    assert float(images["collapsed"]["coverage"]) < 0.2
    assert "ms_ssim  real_random" in printed


def test_arguments_that_belong_together(monkeypatch, capsys, script):
    monkeypatch.setattr(sys, "argv", ["invent_or_copy.py", "--train", "images"])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "--train, --test and --weights belong together" in capsys.readouterr().err


def test_another_networks_weights(tmp_path, script):
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "weights.th")
    with pytest.raises(SystemExit, match=r"holds no ResNet-20: conv1\.weight, "):
        script.load_resnet(tmp_path / "weights.th")
