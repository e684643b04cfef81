from lightning_synthqual.metrics.catalogue import CATALOGUE
from lightning_synthqual.reporting.benchmarks import COLUMNS, benchmarks


def test_every_value_has_a_source_a_protocol_and_a_known_metric():
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in benchmarks().rows]
    assert rows
    assert all(row["metric"] in CATALOGUE and row["value"] > 0 and row["source"] and row["protocol"] for row in rows)
    assert len({(row["model"], row["data"], row["metric"]) for row in rows}) == len(rows)


def test_kid_is_not_in_thousandths():
    assert all(row[3] < 0.01 for row in benchmarks(["kid"]).rows)


def test_a_metric_brings_the_other_protocols_of_it():
    assert {row[2] for row in benchmarks(["fid"]).rows} == {"fid", "fid50k", "fid50k_full"}
    assert {row[2] for row in benchmarks(["kid"]).rows} == {"kid", "kid50k_full"}
