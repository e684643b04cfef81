import pytest

from lightning_synthqual.cli.messages import describe, in_options

ARGUMENTS = ("real", "image_range", "real_range", "image_size", "extractors", "options", "metrics", "skip_unreadable")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`real` is empty.", "`--real` is empty."),
        ("pass `real_range=(0.0, 255.0)`.", "pass `--real-range 0.0 255.0`."),
        ("pass `image_range=(-1, 1)` to `QualityMonitor`.", "pass `--image-range -1 1`."),
        ("Pass `real=` a folder", "Pass `--real` a folder"),
        ("by `image_size=64`", "by `--image-size 64`"),
        ("`extractors['mine']` must be", "`--extractor mine` must be"),
        ("`extractors={'inception': {'weights': 'a/b'}}`", "`--extractor inception=a/b`"),
        ("`extractors={'x': {'precision': 'bfloat16'}}`", '`--extractor x={"precision": "bfloat16"}`'),
        ('`options={"ppl": {"z_length": "gaussian"}}`', '`--option ppl.z_length="gaussian"`'),
        ("`options['pairs']` takes", "`--option pairs` takes"),
        ("`metrics=('fid', 'kid')`", "`--metrics fid,kid`"),
        ("`real_range=(low, high)`", "`--real-range (low, high)`"),
        # What is no option of the command stays as it is.
        ("`num_workers=4` and `latent_dim`", "`num_workers=4` and `latent_dim`"),
        ("the folder `/data/real` and `--real` and real", "the folder `/data/real` and `--real` and real"),
        ("`module(z)` of `Gan`", "`module(z)` of `Gan`"),
    ],
)
def test_arguments_are_written_as_options(message: str, expected: str) -> None:
    assert in_options(message, ARGUMENTS) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("two\n  lines of `real`"), "two lines of `--real`"),
        (FileNotFoundError(2, "No such file", "x"), "[Errno 2] No such file: 'x'"),
        (KeyError("width"), "KeyError: 'width'"),
        (ValueError(), "ValueError"),
        (AssertionError(), "AssertionError"),
        (ValueError("x" * 5000), "x" * 1000 + "…"),
    ],
)
def test_an_error_is_one_line(error: Exception, expected: str) -> None:
    assert describe(error, ARGUMENTS) == expected
