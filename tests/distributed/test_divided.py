"""Data that are divided among processes already, on real processes."""

import pytest


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_parts_are_read_whole_and_nothing_is_counted_twice(run, tmp_path, world_size):
    [alone] = run(tmp_path / "one", 1)
    assert "labels" not in alone
    several = run(tmp_path / "several", world_size)
    sizes = [len(range(rank, 97, world_size)) for rank in range(world_size)]
    for found in several:
        for name in ("whole", "parts", "streams", "parts of both"):
            assert found[name]["scalars"] == pytest.approx(alone["whole"]["scalars"], rel=1e-6), name
            assert found[name] == several[0][name]
            assert (found[name]["reference"]["num_images"], found[name]["num_samples"]) == (97, 60)
            parts = {"of_rank": list(range(world_size)), "items": sizes}
            assert found[name]["reference"].get("parts") == (None if name == "whole" else parts)
        for key in ("error", "labels"):
            assert "needed on every process, but processes have different parts" in found[key]
