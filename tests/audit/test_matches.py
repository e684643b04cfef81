import pytest
import torch
from scipy.stats import pearsonr

from lightning_synthqual.audit.matches import agreement, matches, plainness, preferences, similarities
from lightning_synthqual.metrics.similarity import psnr, shannon_entropy


def draws(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def flattened(images):
    return images.flatten(1).double()


def test_the_nearest_image_is_found_and_extractors_agree_where_they_find_the_same():
    reference = torch.eye(5)
    order = torch.tensor([3, 1, 4])
    found = matches({"one": (0.9 * reference[order], reference), "two": (reference[[3, 0, 2]], reference)})
    assert found["one"].tolist() == [3, 1, 4]
    assert agreement(found) == [{"extractor": "one", "other": "two", "same match": pytest.approx(1 / 3)}]


def test_a_similarity_prefers_the_matches_that_it_would_find_itself():
    reference = draws(9, 3, 16, 16)
    noise = torch.randint(-8, 9, (4, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    tested = (reference[:4].long() + noise).clamp(0, 255).to(torch.uint8)
    found = {"right": torch.arange(4), "wrong": torch.arange(4) + 4}
    rows = preferences(similarities(tested, reference, found))
    by_name = {(row["similarity"], row["matches of"]): row for row in rows}
    for similarity in ("psnr", "ms_ssim"):
        right, wrong = by_name[similarity, "right"], by_name[similarity, "wrong"]
        assert (right["most similar"], wrong["most similar"]) == (1, 0)
        assert right["mean"] > wrong["mean"]
    expected = float(psnr(tested, reference[:4]).double().mean())
    assert by_name["psnr", "right"]["mean"] == pytest.approx(expected)


def test_plainness_is_pearsons_correlation_with_its_interval():
    steps = torch.arange(1, 31)[:, None, None, None]
    tested, reference = ((draws(30, 3, 16, 16, seed=seed) % (4 * steps)).to(torch.uint8) for seed in (0, 1))
    found = {"mine": torch.arange(30).flip(0)}
    rows = plainness(tested, reference, found, similarities(tested, reference, found), seed=0)
    assert [(row["similarity"], row["pairs"]) for row in rows] == [
        (similarity, pairs) for pairs in ("nearest by mine", "random") for similarity in ("psnr", "ms_ssim")
    ]
    entropy = (shannon_entropy(tested) + shannon_entropy(reference)[found["mine"]]) / 2
    known = pearsonr(psnr(tested, reference[found["mine"]]).numpy(), entropy.numpy())
    interval = known.confidence_interval(0.95)
    assert (rows[0]["r"], rows[0]["images"]) == (pytest.approx(known.statistic), 30)
    assert (rows[0]["low"], rows[0]["high"]) == (pytest.approx(interval.low, 1e-3), pytest.approx(interval.high, 1e-3))


def test_there_is_no_correlation_where_nothing_varies():
    images = draws(3, 3, 16, 16)
    found = {"mine": torch.arange(3)}
    rows = plainness(images, images, found, similarities(images, images, found), seed=0)
    assert rows[0] == {
        "similarity": "psnr",
        "pairs": "nearest by mine",
        "r": None,
        "low": None,
        "high": None,
        "images": 0,
    }
