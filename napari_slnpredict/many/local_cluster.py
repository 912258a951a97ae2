"""``--cluster local:N``: a scheduler in this process and N worker processes, on the loopback address only."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_slnpredict.errors import ResourceError

HOST = "127.0.0.1"


@contextlib.contextmanager
def local_cluster(count: int) -> Iterator[Any]:
    """Start `count` worker processes, yield the cluster, end them.

    Dask runs whatever a client sends, so the connections are encrypted with keys that exist in memory only: nobody
    else on this machine can send work. A GPU goes to one worker each, as far as there are GPUs.
    """
    import dask
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    try:
        security = Security.temporary()
    except ImportError as error:
        raise ResourceError(
            "the processes of local:N need the package cryptography", do='pip install "napari-slnpredict[cluster]"'
        ) from error
    common = {"host": HOST, "protocol": "tls://", "security": security, "dashboard": False, "dashboard_address": None}
    worker = {
        **common,
        "nthreads": 1,
        "memory_limit": memory_bytes() // count,
        "silence_logs": logging.CRITICAL,
        "preload": ["napari_slnpredict.many.cluster_worker", *dask.config.get("distributed.worker.preload")],
    }
    workers = {
        index: {"cls": Nanny, "options": {**worker, "name": index, "env": environment}}
        for index, environment in enumerate(gpu_of_each(count))
    }
    # A slide that kills its worker is tried on one more, then named and given up.
    options = {**common, "port": 0, "allowed_failures": 1}
    # Any free port: by itself dask takes 8787, and warns on the user's terminal when another run has that.
    options["dashboard_address"] = f"{HOST}:0"
    scheduler = {"cls": Scheduler, "options": options}
    cluster = SpecCluster(workers=workers, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL)
    try:
        yield cluster
    finally:
        cluster.close(timeout=20)


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container or job that this process is in."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT)


def gpu_of_each(count: int) -> list[dict[str, str]]:
    """Return what to set for each of `count` workers so that each sees one GPU; {} where there is none."""
    gpus = _gpus()
    return [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {} for index in range(count)]


def _gpus() -> list[str]:
    """Return the names of the GPUs this process may use, without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    with contextlib.suppress(OSError):
        # One folder a GPU, where the driver of NVIDIA is (Linux).
        return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
    return []
