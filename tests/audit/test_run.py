import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import lightning_synthqual
from lightning_synthqual import audit
from lightning_synthqual.audit.faults import FAULTS
from lightning_synthqual.audit.scoring import Scoring
from lightning_synthqual.extractors.selection import Selected

FEW = {"contrast": [0.1, 0.8], "hue": [90.0]}


class Tones(nn.Module):
    """Sees means of brightness, and no colour."""

    def forward(self, images):
        grey = (images.round().long().sum(1, keepdim=True) + 1) // 3
        return nn.functional.avg_pool2d(grey.float(), 8).flatten(1)


class Tints(nn.Module):
    """Sees differences of channels, and nothing else."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images[:, 1:] - images[:, :1], 16).flatten(1)


@pytest.fixture
def calls(monkeypatch):
    """What extractors did: the number of ``made`` calls; they fail after the ``most`` calls."""
    count = {"made": 0, "most": math.inf}
    extract = Selected.__call__

    def counted(self, images):
        count["made"] += 1
        if count["made"] > count["most"]:
            raise RuntimeError("stopped")
        return extract(self, images)

    monkeypatch.setattr(Selected, "__call__", counted)
    return count


def coloured(count, seed, side=16):
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 4, 4), generator=draw) * torch.tensor([1.0, 0.7, 0.4])[:, None, None]
    fine = nn.functional.interpolate(255 * coarse, side, mode="bicubic")
    return fine.clamp(0, 255).to(torch.uint8)


def grey(images):
    return images[:, :1].expand(-1, 3, -1, -1).contiguous()


def own(network):
    return {"network": network, "input_range": (0, 255)}


def run(extractors, tmp_path, *, change=lambda images: images, **given):
    real, held_out = (TensorDataset(change(coloured(count, seed))) for count, seed in ((60, 0), (50, 1)))
    if not isinstance(extractors, list):
        extractors = {name: own(network) for name, network in extractors.items()}
    given = {"metrics": ["fd", "kd", "recall"], "faults": FEW, **given}
    return audit(real, held_out=held_out, extractors=extractors, cache_dir=tmp_path, **given)


def without_seconds(found):
    return found.cells, found.colour_share, found.matches, {**found.protocol, "seconds": None}


def test_the_name_is_the_function_and_the_package_can_be_imported_from():
    assert callable(audit)
    assert lightning_synthqual.audit is audit
    assert len(FAULTS) == 18


def test_colour_shares_of_networks_that_see_no_colour_and_of_those_that_see_nothing_else(tmp_path):
    found = run({"tones": Tones(), "tints": Tints()}, tmp_path)
    assert found.colour_share["tones"]["fd"] == pytest.approx(0, abs=1e-6)
    assert found.colour_share["tints"]["fd"] == pytest.approx(1, abs=1e-6)
    assert found.colour_share["tones"].keys() == found.colour_share["tints"].keys() == {"fd", "kd", "recall"}
    assert found.smallest["tints"]["fd"]["hue"] == 90.0
    assert found.smallest["tones"]["fd"]["hue"] is None
    assert found.protocol["seconds"].keys() == {"tones", "tints"}
    assert all(seconds > 0 for seconds in found.protocol["seconds"].values())


def test_hue_changes_grey_images_by_exactly_nothing(tmp_path):
    found = run(["pixels", "wavelet"], tmp_path, change=grey, metrics=["fd", "kd", "precision"])
    cells = [cell for cell in found.cells if cell.fault == "hue"]
    assert len(cells) == 6
    assert all((cell.change, cell.psnr, cell.told) == (0, math.inf, None) for cell in cells)
    assert any(cell.told for cell in found.cells)
    assert found.colour_share == {name: dict.fromkeys(["fd", "kd", "precision"]) for name in ("pixels", "wavelet")}


def test_an_audit_is_the_same_again_and_from_the_cache(tmp_path, calls):
    first = run({"mine": Tones()}, tmp_path / "one")
    made = calls["made"]
    assert made == 5 + 2 + 3  # three doses, two sets; all but the grey tested images also in colour
    cached = run({"mine": Tones()}, tmp_path / "one")
    assert calls["made"] == made
    again = run({"mine": Tones()}, tmp_path / "two")
    assert calls["made"] == 2 * made
    assert without_seconds(first) == without_seconds(cached) == without_seconds(again)
    assert cached.protocol["seconds"] == {}
    assert again.protocol["seconds"].keys() == {"mine"}
    assert len(first.cells) == 9
    assert first.examples.keys() == {"contrast", "hue"}
    assert type(first).from_json(first.to_json()).to_json() == first.to_json()


def test_a_stopped_audit_goes_on_from_the_cache(tmp_path, calls):
    whole = run({"mine": Tones()}, tmp_path / "whole")
    made = calls["made"]
    calls |= {"made": 0, "most": made - 2}
    with pytest.raises(RuntimeError, match="stopped"):
        run({"mine": Tones()}, tmp_path / "part")
    calls |= {"made": 0, "most": math.inf}
    assert without_seconds(run({"mine": Tones()}, tmp_path / "part")) == without_seconds(whole)
    assert calls["made"] == 2


def test_scores_that_are_undefined_are_no_cells(tmp_path, monkeypatch):
    scores = Scoring.scores

    def undefined(self, features):
        found = scores(self, features)
        undefined = replace(next(iter(found.values())), value=torch.tensor(math.nan))
        return {column: undefined if column.metric == "recall" else score for column, score in found.items()}

    monkeypatch.setattr(Scoring, "scores", undefined)
    found = run({"mine": Tones()}, tmp_path)
    assert {cell.metric for cell in found.cells} == {"fd", "kd"}
    assert found.protocol["undefined_cells"] == 3
    assert found.colour_share["mine"]["recall"] is None
    assert "NaN" not in found.to_json()


def test_half_of_the_images_is_tested_if_none_are_held_out(tmp_path):
    everything = TensorDataset(coloured(61, 0))
    found = audit(everything, extractors=["pixels"], metrics=["fd"], faults=FEW, cache_dir=tmp_path)
    assert (found.protocol["num_images"], found.protocol["num_reference"]) == (30, 31)


def test_images_smaller_than_the_window_of_a_similarity(tmp_path):
    found = run(["pixels"], tmp_path, change=lambda images: images[..., :8, :8], metrics=["fd"])
    assert {row["similarity"] for row in found.plainness} == {"psnr"}


def test_lost_groups_are_seen(tmp_path):
    draw = torch.Generator().manual_seed(0)
    levels = torch.arange(4).repeat_interleave(25) * 60.0 + 20

    def images():
        noisy = levels[:, None, None, None] + 12 * torch.randn((100, 3, 16, 16), generator=draw)
        return TensorDataset(noisy.clamp(0, 255).to(torch.uint8))

    given = {
        "extractors": {"mine": own(Tones())},
        "metrics": ["recall", "coverage"],
        "cache_dir": tmp_path,
        "faults": {"mode_drop": [0.5]},
    }
    found = audit(images(), held_out=images(), groups=torch.arange(4).repeat_interleave(25), **given)
    assert {cell.metric: cell.told for cell in found.cells} == {"recall": "worse", "coverage": "worse"}
    with pytest.raises(ValueError, match="`groups` must have one entry for each of 100 images, but has 3"):
        audit(images(), held_out=images(), groups=[0, 1, 2], **given)


def shrunk(images, dose, generator):
    return images[..., 1:]


def idle(images, dose, generator):
    return images


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"faults": {"shrunk": shrunk}}, ValueError, r"'shrunk' returned shape \(1, 3, 16, 15\)"),
        ({"faults": {"idle": idle}}, ValueError, "'idle' changed none of 16 images"),
        ({"faults": ["blurr"]}, ValueError, "names 'blurr', which is unknown"),
        ({"metrics": ["fdd"]}, ValueError, "`metrics` names 'fdd', which is unknown"),
        ({"metrics": ["fd_pixels"]}, ValueError, "named without their extractor"),
        ({"metrics": "fd"}, TypeError, "`metrics` must be a list of names"),
        ({"metrics": ["authenticity_gap"]}, ValueError, "`metrics` names 'authenticity_gap', which is unknown"),
        ({"num_images": 3, "metrics": ["recall"]}, ValueError, "needs at least .* images on each side, but .* 3 to"),
        ({"num_images": 51}, ValueError, "`num_images` is 51, but there are 50 images to test"),
    ],
)
def test_bad_input_is_one_clear_error_before_any_work(given, error, words, tmp_path):
    with pytest.raises(error, match=words):
        run(["pixels"], tmp_path, **given)


def test_images_of_several_sizes_are_refused(tmp_path):
    mixed = [coloured(1, 0)[0], coloured(1, 0, side=20)[0]] * 10
    with pytest.raises(ValueError, match=r"`real` has images of 2 sizes, such as .* Pass `image_size`"):
        audit(mixed, extractors=["pixels"], metrics=["fd"], cache_dir=tmp_path)
    with pytest.raises(
        ValueError, match=r"`held_out` are \(20, 20\) and those of `real` \(16, 16\). Pass `image_size`"
    ):
        audit(
            TensorDataset(coloured(20, 0)),
            held_out=TensorDataset(coloured(20, 1, side=20)),
            extractors=["pixels"],
            metrics=["fd"],
            cache_dir=tmp_path,
        )
