"""What processes tell each other, on real ones."""

import pytest

MOST = 40  # collectives of an evaluation


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_agree_whatever_happens_to_one_of_them(run, tmp_path, world_size):
    found = run(tmp_path / "several", world_size)
    [alone] = run(tmp_path / "one", 1)
    assert alone["evaluations"]["collectives"] == [0, 0]
    for rank, each in enumerate(found):
        first, later = each["evaluations"]["collectives"]
        assert 0 < later <= first < MOST
        for scores, expected in zip(each["evaluations"]["scores"], alone["evaluations"]["scores"], strict=True):
            assert scores == pytest.approx(expected, rel=1e-6)
        assert all(each["sums"])
        assert all(each["rows"])
        assert each["objects"]
        own = "OSError: disk on fire"
        assert each["nested_fault"] == (own if rank == 1 else "OSError: [rank 1, inner] disk on fire")
        assert each["fault_of_all_while_one_is_in_an_attempt"] == (
            own if rank == 0 else "OSError: [rank 0, outer] disk on fire"
        )
        for name, what in (("different_calls", "exchange values"), ("different_shapes", 'of [[2], "float32"]')):
            assert each[name].startswith("RuntimeError: The processes are out of step: rank 0 ")
            assert what in each[name]
            assert each[name] == found[0][name]
        mine, everywhere = each["attempts"]
        assert everywhere == {
            "attempt 1": "[rank 0, attempt 1] 1",
            "attempt 2": "[rank 1, attempt 2] 2",
            "attempt 4": "[rank 1, attempt 4] 4",
        }
        assert {mine["attempt 0"], mine["attempt 3"]} == {"succeeded"}
        hungry = each["want_of_memory"]
        assert hungry["scalars"] == ["hungry", "kd_wavelet", "kd_wavelet_std"]
        assert hungry["failures"] == []
        assert hungry["tried"][-1] <= 1000 < hungry["tried"][-2]
        assert hungry == found[0]["want_of_memory"]
        assert each["still in step"] == list(range(world_size))


@pytest.mark.slow
def test_two_accelerators_score_as_one_process_does_and_keep_nothing(run, tmp_path):
    pytest.importorskip("accelerator")
    [alone] = run(tmp_path / "one", 1)
    for found in run(tmp_path / "two", 2, "--accelerator"):
        first, later = found["evaluations"]["collectives"]
        assert 0 < later <= first < MOST
        assert found["evaluations"]["bytes left"] == 0
        for scores, expected in zip(found["evaluations"]["scores"], alone["evaluations"]["scores"], strict=True):
            assert scores == pytest.approx(expected, rel=1e-6)
