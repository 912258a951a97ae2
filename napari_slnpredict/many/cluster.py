"""Many slides on the workers of a dask.distributed cluster: one task a slide.

Dask only moves tasks: workers open slides and models themselves and write results where one machine would, so the cache
and the output folder must be the same for all. What may go wrong, and what is done:

=========================  =====================================================================================
a worker dies              its slide goes to another, which goes on from the last sealed chunk
a slide kills its workers  named in failures.csv after the second, given up; the others go on
an error on a slide        comes back as a receipt, at once; only errors of the system are tried again
stop is asked for          a flag on the scheduler; workers seal their chunk, answer, and the client ends
the scheduler dies         counts as an interrupt: the same command goes on from the cache
another version somewhere  refused before the first slide
=========================  =====================================================================================
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_slnpredict.errors import ResourceError, one_line
from napari_slnpredict.events import Throttle, Warn
from napari_slnpredict.provenance import versions

from .cluster_worker import Facts, Task, differing, facts, heard, work_on
from .run import Listener
from .slides import Named
from .work import EmbedPlan, Plan, PredictPlan, Receipt, Stopped, traceback_of

#: A slide is handed out this often at most: errors of the system, workers that left, workers that died.
MOST_ATTEMPTS = 3
#: Workers that died over one slide before it is given up.
MOST_DEATHS = 2
#: How long a stopping run waits for workers to seal.
SEAL_SECONDS = 60.0
#: Several of these a second would keep a scheduler busy for nothing.
LOOK_SECONDS = 1.0
CONNECT_SECONDS = 10


def parse_address(text: str) -> int | str:
    """Return N for ``local:N``, else the address of a scheduler.

    Raises
    ------
    ValueError
        Says what was expected.
    """
    local = re.fullmatch(r"local:(\d{1,3})", text)
    if local and int(local[1]) >= 1:
        return int(local[1])
    if re.fullmatch(r"(tcp|tls|ws|wss|ucx|ucxx)://[^\s/]+:\d+|[^\s/:]+:\d+", text) and not text.startswith("local:"):
        return text
    raise ValueError(f"{text!r} is neither local:N nor a scheduler's address, as tcp://host:8786")


def run_on_cluster(address: str, plan: Plan, slides: Sequence[Named], listener: Listener, stop: Stopped) -> bool:
    """Work on each slide on a cluster, until the last, a stop, or a failure of the environment.

    Returns
    -------
    bool
        Whether the scheduler was lost on the way.

    Raises
    ------
    ResourceError
        No dask here, no scheduler there, or workers that do not fit.
    """
    if not slides:
        return False
    with _quiet(plan.debug), _connected(parse_address(address), len(slides)) as client:
        return _Run(client, travelling(plan), slides, listener, stop).go()


def travelling(plan: Plan) -> Plan:
    """Return a plan whose paths mean the same on a worker, which runs in another folder."""
    settings = plan.settings
    settings = replace(settings, cache=str(settings.cache_dir.absolute()), models=str(settings.models_dir.absolute()))
    plan = replace(plan, settings=settings, out=plan.out.absolute() if plan.out else None)
    if isinstance(plan, PredictPlan) and Path(plan.model).exists():
        return replace(plan, model=str(Path(plan.model).absolute()))
    if isinstance(plan, EmbedPlan) and Path(plan.encoder).exists():
        return replace(plan, encoder=str(Path(plan.encoder).absolute()))
    return plan


@contextlib.contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keep dask's own log from the screen: what matters is said in our words."""
    logger = logging.getLogger("distributed")
    before = logger.level
    if not debug:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _connected(address: int | str, slides: int) -> Iterator[Any]:
    """Yield a client of the cluster; a local one is started, with no more workers than slides."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ResourceError(
            "--cluster needs dask.distributed", do='pip install "napari-slnpredict[cluster]"'
        ) from error
    from .local_cluster import local_cluster

    with contextlib.ExitStack() as stack:
        target: Any = address
        if isinstance(address, int):
            target = stack.enter_context(local_cluster(min(address, slides)))
        try:
            client = Client(target, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise ResourceError(
                f"no scheduler answers at {one_line(address, 80)} ({one_line(type(error).__name__)})",
                do="start one with: dask scheduler; and give the address it prints",
            ) from error
        stack.callback(_close, client)
        yield client


def _close(client: Any) -> None:
    # A client whose scheduler is gone may fail to say goodbye; there is nobody to say it to.
    with contextlib.suppress(Exception):
        client.close(timeout=5)


class _Run:
    """One run: which slides wait, which are out, what was heard of them."""

    def __init__(self, client: Any, plan: Plan, slides: Sequence[Named], listener: Listener, stop: Stopped) -> None:
        from distributed import Event, as_completed

        self.client, self.plan, self.listener, self.stop = client, plan, listener, stop
        self.slides = [replace(named, item=replace(named.item, path=named.item.path.absolute())) for named in slides]
        self.name = f"slnpredict-{uuid.uuid4().hex}"
        self.flag = Event(self.name, client=client)
        self.waiting = deque(range(len(slides)))
        self.out: dict[str, tuple[int, Any]] = {}  # by key: place, future
        self.attempts, self.deaths = Counter[int](), Counter[int]()
        self.at_work: dict[int, str] = {}  # place: worker that began it
        self.finished: set[int] = set()
        self.messages: deque[dict[str, Any]] = deque()
        self.threads: dict[str, int] = {}
        self.versions = versions()
        self.room, self.may_look = 1, Throttle(LOOK_SECONDS)
        self.ending = False
        self.arrived = as_completed(loop=client.loop, with_results=True, raise_errors=False)

    def go(self) -> bool:
        """Drive the run to its end; return whether the scheduler was lost."""
        self.client.subscribe_topic(self.name, lambda event: self.messages.append(event[1]))
        try:
            if not self._wait_for_workers():
                return False
            self._check_workers()
            return self._loop()
        except (OSError, RuntimeError) as error:
            if self.client.status == "running":
                raise
            return self._lost(error)
        finally:
            self._end()

    def _loop(self) -> bool:
        while self.waiting or self.out:
            if self.stop() or self.ending:
                self._stop_workers()
                return False
            self._hand_out()
            self._hear()
            for future, result in self.arrived.next_batch(block=False):
                if not self._take(future, result):
                    return self._lost(None)
            time.sleep(0.05)
        return False

    # ------------------------------------------------------------------------------------------------------- workers

    def _wait_for_workers(self) -> bool:
        """Wait for the first worker, which a queue may take hours to start; False: stopped meanwhile."""
        if not self.client.nthreads():
            self.listener.say("Waiting for the cluster's first worker (Ctrl-C ends this).")
            while not self.client.nthreads():
                if self.stop():
                    return False
                time.sleep(LOOK_SECONDS / 2)
        return True

    def _check_workers(self) -> None:
        """Refuse workers that would compute something else than this machine; divide cores among those that share."""
        answers: dict[str, Any] = self.client.run(facts, on_error="return")
        good = {worker: answer for worker, answer in answers.items() if isinstance(answer, Facts)}
        for worker in answers.keys() - good.keys():
            raise ResourceError(
                f"worker {one_line(worker, 80)} cannot run napari-slnpredict ({one_line(answers[worker], 160)})",
                do="install the same version there as here",
            )
        for worker, found in good.items():
            different = differing(self.versions, found.versions)
            if different:
                raise ResourceError(
                    f"worker {one_line(worker, 80)} has {', '.join(different)}",
                    do="install the same versions everywhere, or results would differ",
                )
        sharing = Counter(found.group for found in good.values())
        self.threads = {found.group: max(1, found.cores // sharing[found.group]) for found in good.values()}
        self._warn_of_workers(list(good.values()))

    def _warn_of_workers(self, good: Sequence[Facts]) -> None:
        gpus = Counter((found.host, found.gpus) for found in good if found.gpus)
        for (host, names), count in gpus.items():
            if count > 1:
                self.listener.say(
                    f"{count} workers on {one_line(host, 60)} share CUDA_VISIBLE_DEVICES={one_line(names, 40)}; "
                    "give each its own GPU."
                )
        if any(threads > 1 for threads in self.client.nthreads().values()):
            self.listener.say(
                "Workers with several threads do one slide at a time all the same: start them with --nthreads 1."
            )

    # --------------------------------------------------------------------------------------------------------- slides

    def _hand_out(self) -> None:
        """Give as many slides out as there are workers: a slide queued behind another would die with its worker."""
        if self.may_look():
            self.room = max(1, len(self.client.nthreads()))
        while self.waiting and len(self.out) < self.room:
            place = self.waiting.popleft()
            attempt = self.attempts[place]
            self.attempts[place] += 1
            task = Task(self.name, place, attempt, self.slides[place], self.plan, self.threads, self.versions)
            key = f"{self.name}-{place}-{attempt}"
            future = self.client.submit(work_on, task, key=key, pure=False, retries=0)
            self.out[key] = (place, future)
            self.arrived.add(future)

    def _hear(self) -> None:
        """Pass on what workers told."""
        while self.messages:
            message = self.messages.popleft()
            place = int(message["place"])
            if place in self.finished:
                continue
            if message["kind"] == "began":
                self._began(place, str(message["worker"]))
            elif (event := heard(str(message["kind"]), list(message["facts"]))) is not None:
                self.listener.told(place, event)

    def _began(self, place: int, worker: str) -> None:
        before = self.at_work.get(place)
        self.at_work[place] = worker
        self.listener.began(place)
        if before is not None:
            self.deaths[place] += 1
            self.listener.told(place, Warn("its worker was lost; another goes on from the last sealed chunk"))

    def _take(self, future: Any, result: Any) -> bool:
        """Take in what came of a slide; False: the future was cancelled, so the scheduler is gone."""
        place, _ = self.out.pop(future.key)
        if isinstance(result, Receipt):
            self._take_receipt(place, result)
            return True
        if future.status == "cancelled":
            return False
        error = result[1] if isinstance(result, tuple) and len(result) > 1 else result
        if type(error).__name__ == "KilledWorker":
            self._killed(place)
        else:
            # Not from the slide, whose errors come as receipts: the worker cannot even load our code.
            text = f"a worker cannot run napari-slnpredict ({type(error).__name__}: {one_line(error, 160)})"
            shown = self.slides[place].label.shown
            trace = traceback_of(error) if self.plan.debug and isinstance(error, BaseException) else ""
            self._finish(
                place, Receipt(failure=(shown, type(error).__name__, f"{shown}: {text}"), ends_run=3, trace=trace)
            )
        return True

    def _take_receipt(self, place: int, receipt: Receipt) -> None:
        if (receipt.stopped or receipt.again) and self.attempts[place] < MOST_ATTEMPTS:
            self.at_work.pop(place, None)
            self.waiting.append(place)
        elif receipt.stopped:
            shown = self.slides[place].label.shown
            text = f"{shown}: {self.attempts[place]} workers left while working on it. Run again; what is done is kept."
            self._finish(place, Receipt(failure=(shown, "WorkerLeft", text)))
        else:
            self._finish(place, receipt)

    def _killed(self, place: int) -> None:
        """Give a slide up whose workers died, or hand it out again when they died of another slide."""
        self._hear()
        deaths = self.deaths[place] + (place in self.at_work)
        if deaths < MOST_DEATHS and self.attempts[place] < MOST_ATTEMPTS:
            self.waiting.append(place)
            return
        shown = self.slides[place].label.shown
        text = (
            f"{shown}: {max(deaths, MOST_DEATHS)} workers died while working on it (out of memory, or a crash in a "
            "decoder). Run this slide alone on a machine with more memory."
        )
        self._finish(place, Receipt(failure=(shown, "KilledWorker", text)))

    def _finish(self, place: int, receipt: Receipt) -> None:
        self._hear()
        if place not in self.at_work:
            self.listener.began(place)
        self.finished.add(place)
        self.listener.ended(place, receipt)
        self.ending = self.ending or bool(receipt.ends_run)

    # ------------------------------------------------------------------------------------------------------- the end

    def _stop_workers(self) -> None:
        """Raise the flag and wait until every worker has sealed; slides that end meanwhile still count."""
        self.flag.set()
        deadline = time.monotonic() + SEAL_SECONDS
        while self.out and time.monotonic() < deadline:
            for future, result in self.arrived.next_batch(block=False):
                place, _ = self.out.pop(future.key)
                if isinstance(result, Receipt) and not result.stopped and place not in self.finished:
                    self._finish(place, result)
            time.sleep(0.05)

    def _lost(self, error: BaseException | None) -> bool:
        kind = f" ({type(error).__name__})" if error is not None else ""
        self.listener.say(f"The cluster's scheduler is gone{kind}. Start it and its workers again, then this command.")
        return True

    def _end(self) -> None:
        """Leave nothing behind on a cluster that others use: no task, no subscription, no flag."""
        with contextlib.suppress(Exception):
            if self.client.status == "running":
                if self.out:
                    self.flag.set()
                    self.client.cancel([future for _, future in self.out.values()])
                elif self.flag.is_set():
                    self.flag.clear()
                self.client.unsubscribe_topic(self.name)
