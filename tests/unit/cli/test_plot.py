"""`vmrun plot`: the files are pictures, and show what they should."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from array import array
from pathlib import Path

import numpy as np
import pytest

from tests.support.source import ROOT
from tests.unit.cli.fakes import JOB, NOW, VM, job_view, record, stats_of
from vmrun.core.views import TaskCounts
from vmrun.rendering import histogram
from vmrun.watch.timeline import Timeline

pytestmark = pytest.mark.timeout(600)

KINDS = ("ok", "raised", "exited", "signalled", "timeout", "oom", "unpicklable", "cancelled", "lost")


@pytest.fixture(autouse=True)
def some(client) -> None:
    client.job.views = [job_view("failed", tasks=TaskCounts(40, 36, 4, 0))]
    client.job.ended = [record(task, "raised" if task % 10 == 3 else "ok") for task in range(40)]


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def pixels(path: Path) -> set[tuple[int, int, int]]:
    """The colours of a picture."""
    from matplotlib.image import imread

    image = (imread(path)[:, :, :3] * 255).round().astype(int)
    packed = {int(color) for color in np.unique(image[:, :, 0] << 16 | image[:, :, 1] << 8 | image[:, :, 2])}
    return {(color >> 16, color >> 8 & 255, color & 255) for color in packed}


def rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def test_a_png_of_both_by_default(vmrun, here) -> None:
    done = vmrun("plot", JOB)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"vmrun-{JOB}.png\n"
    assert [path.name for path in here.iterdir()] == [f"vmrun-{JOB}.png"], "and nothing beside it"
    width, height = size_of((here / f"vmrun-{JOB}.png").read_bytes())
    assert width == 1650
    assert 700 < height < 1600
    colors = pixels(here / f"vmrun-{JOB}.png")
    assert rgb(histogram.COLORS[0]) in colors  # type: ignore[index]
    assert rgb(histogram.COLORS[1]) in colors, "failures are seen"  # type: ignore[index]


def test_one_of_them_is_lower(vmrun, here) -> None:
    heights = {}
    for kind in ("both", "timeline", "histogram"):
        assert vmrun("plot", JOB, "--kind", kind, "-o", f"{kind}.png").out == f"{kind}.png\n"
        heights[kind] = size_of((here / f"{kind}.png").read_bytes())[1]
    assert heights["both"] > max(heights["timeline"], heights["histogram"])


def test_an_svg_has_a_bar_for_each_task_and_is_the_same_each_time(vmrun, here) -> None:
    for name in ("a.svg", "b.svg"):
        vmrun("plot", JOB, "-o", name, "--kind", "timeline")
    text = (here / "a.svg").read_text()
    assert text == (here / "b.svg").read_text()
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    for color, least in ((histogram.COLORS[0], 18), (histogram.COLORS[1], 4)):  # type: ignore[index]
        assert len(re.findall(f"fill: {color}", text)) >= least


def test_a_pdf(vmrun, here) -> None:
    assert vmrun("plot", JOB, "-o", "a.pdf", "--json").document["plot"] == "a.pdf"
    assert (here / "a.pdf").read_bytes().startswith(b"%PDF-")


@pytest.mark.slow
def test_very_many_tasks_take_a_picture_of_bounded_size(vmrun, client, here) -> None:
    count, workers, rng = 100_000, 64, random.Random(5)
    row = array("I", [at % workers for at in range(count)])
    started = array("d", [NOW + at // workers * 0.01 for at in range(count)])
    status = bytearray(count)
    status[rng.randrange(count)] = 4
    stats = stats_of([record(0)], client.job.status())
    rows = [(VM, worker) for worker in range(workers)]
    client.job.drawn = Timeline(stats, rows, row, started, array("f", [0.009]) * count, status)
    for name in ("many.png", "many.svg"):
        assert vmrun("plot", JOB, "-o", name).code == 0
        assert (here / name).stat().st_size < 500_000
    assert rgb(histogram.COLORS[4]) in pixels(here / "many.png"), "one failure in a hundred thousand is seen"  # type: ignore[index]


@pytest.mark.parametrize(
    "records",
    [
        [record(0)],
        [record(0, seconds=0.0)],
        [record(0, seconds=1e-9), record(1, seconds=90_000.0)],
        [record(at, kind) for at, kind in enumerate(KINDS)],
        [record(0), record(1, "cancelled", started=None, ended=None, worker=None, seconds=0.0)],
        [record(at, started=NOW, seconds=5.0, worker=0) for at in range(3)],
    ],
    ids=["one", "no-time", "wide", "all-kinds", "never-began", "overlapping"],
)
def test_odd_jobs_are_drawn_without_a_warning(vmrun, client, here, records) -> None:
    client.job.ended = records
    done = vmrun("plot", JOB, "-o", "odd.png")
    assert (done.code, done.err) == (0, "")
    assert size_of((here / "odd.png").read_bytes())[0] == 1650


def test_a_name_is_drawn_as_it_is(vmrun, client, here) -> None:
    client.job.views = [job_view(name="$\\frac{1$ 🚀 日本 \x1b[1m" + "x" * 100)]
    done = vmrun("plot", JOB, "-o", "named.svg")
    assert (done.code, done.err) == (0, "")


# --- when it cannot be ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "a.jpg"], "'a.jpg' is not a picture"),
        (["-o", "a"], "'a' is not a picture"),
        (["--kind", "pie"], "there is no plot 'pie'"),
        (["-o", "no/such/folder/a.png"], "No such file or directory"),
    ],
)
def test_what_cannot_be_drawn(vmrun, here, arguments, message) -> None:
    done = vmrun("plot", JOB, *arguments)
    assert done.code == 2
    assert message in done.err
    assert "hint:" in done.err
    assert list(here.iterdir()) == []


def test_nothing_to_draw(vmrun, client, here) -> None:
    client.job.ended = []
    done = vmrun("plot", JOB)
    assert done.code == 2
    assert f"error: no task of job {JOB} has ended yet" in done.err
    assert list(here.iterdir()) == []


def test_without_matplotlib_it_says_how_to_get_it(here) -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from tests.unit.cli.fakes import FakeClient, FakeHandle, record\n"
        "from vmrun.cli import run\n"
        f"sys.exit(run(['plot', {JOB!r}], connect=lambda: FakeClient(FakeHandle(ended=[record(0)]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": str(ROOT), "HOME": str(here)},
    )
    assert done.returncode == 2
    assert "matplotlib, which is not installed here\nhint: `pip install 'vmrun[plot]'`\n" in done.stderr


def test_the_extra_brings_it() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(each.startswith("matplotlib") for each in extras["plot"])


# --- scales ---


@pytest.mark.parametrize(("least", "most"), [(1e-7, 3e-6), (1e-6, 1e-3), (0.5, 600.0), (1e-7, 1e5), (20.0, 90_000.0)])
def test_a_logarithmic_scale_has_a_few_round_labels(least: float, most: float) -> None:
    ticks = histogram._ticks(least, most)
    assert 2 <= len(ticks) <= histogram._TICKS_MAX + 2
    assert ticks == sorted(ticks)
    assert all(least <= tick <= most for tick in ticks)
    texts = [histogram._tick_text(tick) for tick in ticks]
    assert len(set(texts)) == len(texts)
    assert all(re.fullmatch(r"\d+ (ns|µs|ms|s)|\d+[mhd]", text) for text in texts), texts


def test_documents_stay_documents(vmrun) -> None:
    assert json.loads(vmrun("plot", JOB, "--json", "--kind", "pie").out)["error"]["code"] == "usage"
