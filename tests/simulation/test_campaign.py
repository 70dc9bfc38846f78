"""A campaign goes on where it was interrupted, and forgets no failure."""

import pytest

from tests.simulation import campaign, rules


@pytest.fixture
def campaign_of(tmp_path):
    """campaign_of(seeds): (its exit code, what it said)."""

    def go_on(seeds):
        said = []
        return campaign.go_on(seeds, 2, tmp_path, said.append), said

    return go_on


def test_only_what_was_not_run_is_run(campaign_of):
    assert campaign_of(2)[1][-1].startswith("2 seeds done on this version of the sources, 2 of them in")
    assert campaign_of(3)[1][-1].startswith("3 seeds done on this version of the sources, 1 of them in")
    code, said = campaign_of(3)
    assert (code, len(said)) == (0, 1)
    assert said[0].startswith("3 seeds done on this version of the sources, 0 of them in")
    assert said[0].endswith("0 failures; 3 seeds on all versions")


def test_a_failure_is_told_and_counts_in_the_next_run_too(campaign_of, monkeypatch):
    with rules.without("applying-takes-no-position"):
        code, said = campaign_of(3)
    assert code == 1
    assert any("python -m tests.simulation --seed" in text for text in said)
    assert campaign_of(3)[0] == 1


def test_a_line_that_was_cut_off_is_no_result(tmp_path):
    record = campaign.Record(tmp_path, "now")
    record.add([(1, ""), (2, "I1 is broken")])
    with (tmp_path / "now").open("a") as file:
        file.write("3")
    (tmp_path / "before").write_text("7 \n8 \n")
    record = campaign.Record(tmp_path, "now")
    assert record.failures == {1: "", 2: "I1 is broken"}
    assert (record.failed(), record.of_all_versions()) == (1, 4)
