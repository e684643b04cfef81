import pytest

from lightning_synthqual.callbacks.schedule import Schedule


def test_default_is_after_validation_or_after_an_epoch_without_one():
    schedule = Schedule()
    assert schedule.due_after_validation()
    assert schedule.due_after_epoch(1, has_validation=False)
    assert not schedule.due_after_epoch(1, has_validation=True)
    assert not schedule.due_after_batch(1)


def test_either_setting_replaces_the_default():
    for schedule in (Schedule(every_n_epochs=2), Schedule(every_n_train_batches=2)):
        assert not schedule.due_after_validation()
        assert not schedule.due_after_epoch(1, has_validation=False)
    assert Schedule(every_n_epochs=2).due_after_epoch(4, has_validation=True)
    assert Schedule(every_n_train_batches=5).due_after_batch(10)
    assert not Schedule(every_n_train_batches=5).due_after_batch(11)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_counts_are_positive_integers(value):
    with pytest.raises((TypeError, ValueError), match="every_n_epochs"):
        Schedule(every_n_epochs=value)
