"""A table made by workers of Ray on two nodes, some of which are killed, is that of one process, row for row."""

import sys

import pytest

from maskinversion.cli.main import main
from tests.helpers.datasets import pictures_and_masks

pytest.importorskip("pyarrow")
pytest.importorskip("ray")
PICTURES, PART = 30, 3


@pytest.fixture
def arguments(tmp_path):
    """Of pictures with two masks each, one of which is cut off."""
    named = pictures_and_masks(tmp_path, PICTURES)
    damaged = tmp_path / "pictures" / "07.png"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    return [*named, "--part", str(PART), "--preset", "published"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the workers are found in /proc")
def test_killed_workers_and_drivers_leave_the_table_of_one_process(arguments, tmp_path):
    from tests.helpers import cluster_kills

    cluster_kills.finish(cluster_kills.embed(arguments, tmp_path / "one"))
    kills = ((0.1, cluster_kills.DRIVER), (0.4, cluster_kills.WORKER))
    happened = cluster_kills.make_with_kills(arguments, tmp_path / "killed", PICTURES // PART, kills)
    assert len(happened) == 3 and "1 rejects, of 1 pictures" in happened[-1]
    assert cluster_kills.compare(tmp_path / "one", tmp_path / "killed") == 2 * (PICTURES - 1)


def test_an_address_where_no_cluster_is(arguments, tmp_path, capsys):
    assert main(["embed", *arguments, "--out", str(tmp_path / "out"), "--address", "nonsense"]) == 1
    assert "a cluster of Ray is not at nonsense: start it with `ray start --head`" in capsys.readouterr().err
