import copy

import pytest

from lightning_synthqual import Report
from lightning_synthqual.reporting.compare import compare, protocol_of

PROTOCOL = {
    "version": "0.1.0",
    "num_samples": 100,
    "image_range": [-1.0, 1.0],
    "real_range": [-1.0, 1.0],
    "image_size": None,
    "quantisation": "uint8",
    "reference": {"role": "real", "num_images": 50, "size": [8, 8], "fingerprint": "a" * 40},
    "other_real": {"role": "held_out", "num_images": 20, "fingerprint": "b"},
    "generated": {"size": [8, 8]},
    "extractors": {"inception": {"name": "inception", "weights": "c" * 64}, "mine": {"weights": "d"}},
    "pairs": {},
    "metrics": {
        "fid": {"family": "frechet", "extractor": "inception"},
        "fd_mine": {"family": "frechet", "extractor": "mine"},
        "precision": {"family": "precision", "extractor": "inception", "k": 3},
        "closer_to_train_mine": {"family": "memorization", "extractor": "mine", "both_sets": True},
        "pairs": {
            "family": "pairs",
            "extractor": "mine",
            "num_images": 10,
            "both_sets": True,
            "networks": ["lpips_alex"],
        },
    },
}
SCALARS = {"fid": 10.0, "fid_std": 0.5, "precision": 0.5, "closer_to_train_mine": 0.5, "pairs_psnr_train": 20.0}


def report(change=None, **scalars):
    protocol = copy.deepcopy(PROTOCOL)
    if change is not None:
        change(protocol)
    return Report(scalars=SCALARS | scalars, protocol=protocol, timings={})


def test_like_protocols_share_rows():
    table, notes = compare({"A": report(), "B": report(fid=9.0, fid_std=0.25)})
    assert table.columns == ("metric", "A", "B")
    assert table.rows[0] == ("fid", "10 ± 0.5", "9 ± 0.25")
    assert [row[0] for row in table.rows] == ["fid", "precision", "closer_to_train_mine", "pairs_psnr_train"]
    assert notes == []


def test_what_belongs_to_the_generators_may_differ():
    def change(protocol):
        protocol["image_range"] = [0.0, 1.0]
        protocol["version"] = "0.2.0"
        protocol["seed"] = 3

    table, notes = compare({"A": report(), "B": report(change)})
    assert all("" not in row for row in table.rows)
    assert notes == []


def other_k(protocol):
    protocol["metrics"]["precision"]["k"] = 5


def other_held_out(protocol):
    protocol["other_real"]["fingerprint"] = "e"


def other_weights(protocol):
    protocol["extractors"]["inception"]["weights"] = "f" * 64


def other_count(protocol):
    protocol["num_samples"] = 90


def other_reference(protocol):
    protocol["reference"]["fingerprint"] = "g" * 40


def other_pairs(protocol):
    protocol["metrics"]["pairs"]["num_images"] = 11


def other_network(protocol):
    protocol["pairs"] = {"lpips_alex": {"weights": "h"}}


@pytest.mark.parametrize(
    ("change", "apart", "words"),
    [
        (other_k, {"precision"}, "options k: 3 / 5"),
        (other_held_out, {"closer_to_train_mine", "pairs_psnr_train"}, "other_real fingerprint: b / e"),
        (other_weights, {"fid", "precision"}, "extractor weights: cccccccccccc… / ffffffffffff…"),
        (other_count, set(SCALARS) - {"fid_std"}, "num_samples: 100 / 90"),
        (other_reference, set(SCALARS) - {"fid_std"}, "reference fingerprint: aaaaaaaaaaaa… / gggggggggggg…"),
        (other_pairs, {"pairs_psnr_train"}, "options num_images: 10 / 11"),
        (other_network, {"pairs_psnr_train"}, "pair networks lpips_alex: None / {'weights': 'h'}"),
    ],
)
def test_numbers_of_unlike_protocol_never_share_a_row(change, apart, words):
    table, notes = compare({"A": report(), "B": report(change)})
    for name in set(SCALARS) - {"fid_std"}:
        rows = [row[1:] for row in table.rows if row[0] == name]
        if name in apart:
            assert len(rows) == 2
            assert sorted(row.index("") for row in rows) == [0, 1]
        else:
            assert len(rows) == 1
            assert "" not in rows[0]
    assert {note.split(":")[0] for note in notes} == apart
    assert all(words in note for note in notes)


def test_one_generator_under_several_extractors():
    one, other = report(), Report(scalars={"fd_mine": 3.0}, protocol=PROTOCOL, timings={})
    table, notes = compare({"inception": one, "mine": other})
    assert ("fd_mine", "", "3") in list(table.rows)
    assert notes == []


def test_the_protocol_of_a_studys_scalar_is_the_studys():
    assert protocol_of("pairs_psnr_train", PROTOCOL)["options"]["family"] == "pairs"
