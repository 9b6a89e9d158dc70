"""Statistics, read from trees of files with the texts that kernels give."""

from __future__ import annotations

from pathlib import Path

from pyrunc import jsonio
from pyrunc.cgroups import stats

MAX = 0xFFFFFFFFFFFFFFFF


def tree(root: Path, files: dict[str, str]) -> str:
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        (root / name).write_text(text)
    return str(root)


def test_v1(tmp_path: Path) -> None:
    memory = {"memory.stat": "cache 10\nrss 20\n"}
    for i, infix in enumerate(("", "memsw.", "kmem.", "kmem.tcp.")):
        for j, file in enumerate(("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")):
            memory[f"memory.{infix}{file}"] = f"{10 * i + j}\n"
    del memory["memory.kmem.limit_in_bytes"]  # gone in newer kernels
    paths = {
        "cpu": tree(tmp_path / "cpu", {"cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 300\n"}),
        "cpuacct": tree(
            tmp_path / "cpuacct",
            {
                "cpuacct.stat": "user 3\nsystem 4\n",
                "cpuacct.usage": "99\n",
                "cpuacct.usage_percpu": "60 39 \n",
                "cpuacct.usage_all": "cpu user system\n0 50 10\n1 30 9\n",
            },
        ),
        "cpuset": tree(
            tmp_path / "cpuset",
            {"cpuset.cpus": "0-2,5\n", "cpuset.mems": "0\n", "cpuset.sched_relax_domain_level": "-1\n"},
        ),
        "memory": tree(tmp_path / "memory", memory),
        "pids": tree(tmp_path / "pids", {"pids.current": "3\n", "pids.max": "max\n"}),
        "blkio": tree(
            tmp_path / "blkio",
            {
                "blkio.bfq.io_serviced_recursive": "8:0 Read 4\n8:0 Write 0\nTotal 4\n",
                "blkio.throttle.io_serviced_recursive": "8:0 Read 99\nTotal 99\n",
                "blkio.bfq.io_service_bytes_recursive": "Total 0\n",
                "blkio.throttle.io_service_bytes_recursive": "8:16 Read 4096\nTotal 4096\n",
                "blkio.sectors_recursive": "8:0 17\n",
            },
        ),
        "hugetlb": tree(
            tmp_path / "hugetlb",
            {
                "hugetlb.2MB.usage_in_bytes": "1\n",
                "hugetlb.2MB.rsvd.usage_in_bytes": "2\n",
                "hugetlb.2MB.rsvd.max_usage_in_bytes": "3\n",
                "hugetlb.2MB.rsvd.failcnt": "4\n",
                "hugetlb.1GB.usage_in_bytes": "0\n",
                "hugetlb.1GB.max_usage_in_bytes": "0\n",
                "hugetlb.1GB.failcnt": "0\n",
            },
        ),
    }
    found = stats.v1(paths)
    assert found["cpu"] == {
        "usage": {
            "total": 99,
            "percpu": [60, 39],
            "percpu_kernel": [10, 9],
            "percpu_user": [50, 30],
            "kernel": 40_000_000,  # ticks of 10 ms
            "user": 30_000_000,
        },
        "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 300},
    }
    assert found["cpuset"]["cpus"] == [0, 1, 2, 5]
    assert found["cpuset"]["sched_relax_domain_level"] == -1
    assert found["cpuset"]["cpu_exclusive"] == 0
    assert found["memory"] == {
        "cache": 10,
        "usage": {"limit": 0, "usage": 1, "max": 2, "failcnt": 3},
        "swap": {"limit": 10, "usage": 11, "max": 12, "failcnt": 13},
        "kernel": {"limit": 0, "usage": 21, "max": 22, "failcnt": 23},
        "kernelTCP": {"limit": 30, "usage": 31, "max": 32, "failcnt": 33},
        "raw": {"cache": 10, "rss": 20},
    }
    assert found["pids"] == {"current": 3}
    assert found["blkio"] == {
        "ioServicedRecursive": [
            {"major": 8, "op": "Read", "value": 4},
            {"major": 8, "op": "Write"},
        ],
        "ioServiceBytesRecursive": [{"major": 8, "minor": 16, "op": "Read", "value": 4096}],
        "sectorsRecursive": [{"major": 8, "value": 17}],
    }
    assert found["hugetlb"] == {"2MB": {"usage": 2, "max": 3, "failcnt": 4}, "1GB": {"failcnt": 0}}
    assert jsonio.loads(jsonio.dumps(found)) == found


def test_v2(tmp_path: Path) -> None:
    pressure = "some avg10=0.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    directory = tree(
        tmp_path / "web",
        {
            "cpu.stat": "usage_usec 9\nuser_usec 4\nsystem_usec 5\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\n",
            "cpu.pressure": pressure,
            "memory.stat": "anon 1\nfile 2\n",
            "memory.current": "100\n",
            "memory.max": "200\n",
            "memory.peak": "150\n",
            "memory.swap.current": "10\n",
            "memory.swap.max": "20\n",
            "pids.current": "3\n",
            "pids.max": "30\n",
            "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1 \n",
            "hugetlb.2MB.current": "1\n",
            "hugetlb.2MB.rsvd.current": "2\n",
            "hugetlb.2MB.events": "max 5\n",
        },
    )
    found = stats.v2(directory)
    assert found["cpu"] == {
        "usage": {"total": 9000, "kernel": 5000, "user": 4000},
        "throttling": {"periods": 1, "throttledPeriods": 2, "throttledTime": 3000},
        "psi": {
            "some": {"avg10": 0.5, "avg60": 0.0, "avg300": 0.0, "total": 7},
            "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0},
        },
    }
    assert found["memory"]["usage"] == {"limit": 200, "usage": 100, "max": 150, "failcnt": 0}
    assert found["memory"]["swap"] == {"limit": 220, "usage": 110, "failcnt": 0}
    assert found["memory"]["cache"] == 2
    assert found["pids"] == {"current": 3, "limit": 30}
    assert found["blkio"] == {
        "ioServiceBytesRecursive": [
            {"major": 8, "op": "Read", "value": 1},
            {"major": 8, "op": "Write", "value": 2},
        ],
        "ioServicedRecursive": [
            {"major": 8, "op": "Read", "value": 3},
            {"major": 8, "op": "Write", "value": 4},
        ],
    }
    assert found["hugetlb"] == {"2MB": {"usage": 2, "failcnt": 5}}
    assert found["network_interfaces"] is None
    assert jsonio.loads(jsonio.dumps(found)) == found


def test_v2_without_controllers_and_without_limits(tmp_path: Path) -> None:
    files = {"cpu.stat": "usage_usec 1\n", "cgroup.threads": "10\n11\n"}
    found = stats.v2(tree(tmp_path / "few", files))
    assert found["pids"] == {"current": 2}
    assert found["memory"] == {}
    files |= {"memory.stat": "", "memory.current": "1\n", "memory.max": "max\n", "memory.swap.max": "max\n"}
    found = stats.v2(tree(tmp_path / "few", files))
    assert found["memory"]["usage"]["limit"] == found["memory"]["swap"]["limit"] == MAX
