import json

import pytest


@pytest.mark.slow
def test_two_folders_side_by_side(run, tmp_path):
    printed, _ = run("evaluate_folder.sh")
    scores = {}
    for name in ("little", "much"):
        folder = tmp_path / "runs/folders" / f"report-{name}"
        assert (folder / "report.html").stat().st_size > 10_000
        scores[name] = json.loads((folder / "report.json").read_text())["scalars"]
    assert scores["little"]["fd_wavelet"] < scores["much"]["fd_wavelet"]
    assert scores["little"]["precision_wavelet"] > scores["much"]["precision_wavelet"]
    last = printed.splitlines()[-len(scores["little"]) :]
    assert any(line.startswith("closer_to_train_pixels") for line in last)


def test_the_wrong_number_of_folders(run):
    _, log = run("evaluate_folder.sh", "real", fails=2)
    assert "evaluate_folder.sh [REAL HELD_OUT GENERATED OTHER]" in log
