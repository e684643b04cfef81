from typing import Any

import pytest

from lightning_synthqual.metrics.catalogue import CATALOGUE, metrics_by_name
from lightning_synthqual.metrics.options import complete, option

EXTRACTORS = ("inception", "wavelet", "dreamsim", "clip")

# Values that once came through, or failed hours later: by family, option and value.
BAD = [
    ("kid", "subsets", -3, ValueError, "an integer of at least 1, or None, but got -3"),
    ("kid", "subset_size", 1, ValueError, "an integer of at least 2, but got 1"),
    ("kid", "degree", "3", TypeError, "an integer of at least 1, but got '3'"),
    ("kid", "gamma", 0, ValueError, "a finite number above 0, or None, but got 0"),
    ("kid", "coef0", float("nan"), ValueError, "a finite number, but got nan"),
    ("kid", "seed", -1, ValueError, "of at least 0 of at most 4294967295, but got -1"),
    ("kid_rbf", "sigma", 0.0, ValueError, "a finite number above 0, but got 0.0"),
    ("cmmd", "unbiased", "no", TypeError, "True or False, but got 'no'"),
    ("cmmd", "scale", "1000", TypeError, "a finite number above 0, but got '1000'"),
    ("isc", "splits", 0, ValueError, "an integer of at least 1, but got 0"),
    ("isc", "splits", 2.5, TypeError, "an integer of at least 1, but got 2.5"),
    ("precision", "k", True, TypeError, "an integer of at least 1, but got True"),
    ("density", "k", 0, ValueError, "an integer of at least 1, but got 0"),
    ("memorization", "shown", 0, ValueError, "an integer of at least 1, but got 0"),
    ("memorization", "cells", 0, ValueError, "an integer of at least 1, but got 0"),
    ("memorization", "distance", "l1", ValueError, "'cosine' or 'euclidean', but got 'l1'"),
    ("pairs", "num_images", 0, ValueError, "an integer of at least 3, but got 0"),
    ("pairs", "metrics", "psnr", TypeError, "or an instance of tuple, but got 'psnr'"),
    ("pairs", "metrics", [], ValueError, "must name at least one similarity"),
    ("pairs", "metrics", [3], ValueError, "must name at least one similarity"),
    ("feature_space", "num_images", 1, ValueError, "an integer of at least 2, but got 1"),
    ("feature_space", "methods", ["isomap"], ValueError, "'pca', 'tsne' or 'umap', but got 'isomap'"),
    ("feature_space", "methods", [], ValueError, "Name at least one"),
    ("feature_space", "seed", 2**32, ValueError, "of at most 4294967295"),
    ("ppl", "num_pairs", 1, ValueError, "an integer of at least 2, but got 1"),
    ("ppl", "num_pairs", "10", TypeError, "an integer of at least 2, but got '10'"),
    ("ppl", "epsilon", 0.0, ValueError, "of at most 1 above 0, but got 0.0"),
    ("ppl", "epsilon", 1.5, ValueError, "of at most 1 above 0, but got 1.5"),
    ("ppl", "crop", "yes", ValueError, "True, False or None, but got 'yes'"),
    ("ppl", "z_length", "long", ValueError, "'unit' or 'gaussian', but got 'long'"),
    ("ppl", "space", "y", ValueError, "'z' or 'w', but got 'y'"),
    ("ppl", "sampling", None, ValueError, "'full' or 'end', but got None"),
    ("ppl", "distance", 3, TypeError, "a non-empty string or a callable, but got 3"),
    ("ppl", "mapping", 3, TypeError, "a non-empty string, but got 3"),
    ("ppl", "noise", "", ValueError, "a non-empty string, but got ''"),
]


@pytest.mark.parametrize(
    ("family", "name", "value", "error", "message"), BAD, ids=[f"{each[0]}.{each[1]}={each[2]!r}" for each in BAD]
)
def test_bad_values_are_errors_that_name_the_option(
    family: str, name: str, value: Any, error: type[Exception], message: str
) -> None:
    metric = next(key for key, entry in CATALOGUE.items() if entry.bare and entry.metric.family == family)
    with pytest.raises(error, match=message) as caught:
        metrics_by_name([metric], EXTRACTORS, {family: {name: value}})
    assert f"options['{family}']['{name}']" in str(caught.value)


def test_every_default_is_a_value_that_its_own_rule_allows() -> None:
    for entry in CATALOGUE.values():
        for name, each in entry.metric.OPTIONS.items():
            value = each.rule.check(name, each.default)
            assert value == each.default
            assert type(value) is type(each.default)


def test_what_is_given_takes_the_place_of_the_default() -> None:
    options = {"k": option(3, low=1), "seed": option(None, kind=int)}
    assert complete(options, {}, "here") == {"k": 3, "seed": None}
    assert complete(options, {"k": 5}, "here") == {"k": 5, "seed": None}
    with pytest.raises(ValueError, match="`here` has no option 'x'; it takes: k, seed"):
        complete(options, {"x": 5}, "here")
    with pytest.raises(ValueError, match="`here` has no option 'x'; it takes: none"):
        complete({}, {"x": 5}, "here")
