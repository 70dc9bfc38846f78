"""A segment's regions, as the bench of memory takes them from the layout and the segment itself."""

import pytest

from tests.bench.test_bench import BENCH

ROUNDING_MAX = 0.01  # of the memory


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.parametrize("memory", ["2MiB", "9MiB", "129MiB"])
def test_every_byte_of_a_segment_is_in_one_region(memory):
    import mesh
    from geometry import OTHERS, geometry_of

    with mesh.local("geometry", memory) as cache:
        geometry, stats = geometry_of(cache), cache.stats()
    assert geometry.memory_bytes == stats["memory_bytes"]
    assert geometry.value_bytes == stats["value_bytes"]
    assert geometry.fixed_bytes + geometry.growing_bytes + geometry.value_bytes == stats["memory_bytes"]
    assert geometry.growing == {"index", "page words", "page notes", OTHERS}
    assert geometry.regions["ring"] == 16 * stats["ring_slots"]
    words = geometry.regions["index"] // 8  # the policy has three bytes for each
    rest = geometry.regions[OTHERS] - 3 * words  # rounding, and less than a page that did not fit
    assert 0 <= rest < ROUNDING_MAX * stats["memory_bytes"] + stats["page_bytes"]


def test_a_layout_that_does_not_describe_the_segment_is_said(monkeypatch, tmp_path):
    import geometry
    import mesh

    text = geometry.LAYOUT.read_text().replace("page_count x page_bytes", "page_count x 64        ")
    (tmp_path / "layout.h").write_text(text)
    monkeypatch.setattr(geometry, "LAYOUT", tmp_path / "layout.h")
    with mesh.local("geometry", "2MiB") as cache, pytest.raises(SystemExit, match="does not describe"):
        geometry.geometry_of(cache)
