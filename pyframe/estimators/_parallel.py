"""The backend "pyframe" of joblib: what it runs in parallel, it runs in threads of this process."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import ThreadingBackend

from pyframe.native.threads import beside, threads_left
from pyframe.training.company import Company

NAME = "pyframe"


class _Threads:
    """Some threads that call functions.

    joblib's own pool has three more, which hand tasks and results on: each of them would wait for
    the interpreter's lock, and hold up one that fits.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        for _ in range(count):  # as those of joblib: they keep no program from its end
            threading.Thread(target=self._work, name="pyframe tasks", daemon=True).start()

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Have a function called, and return what will hold its result."""
        future: Future[Any] = Future()
        self._tasks.put((future, function))
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function = task
            try:
                result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            del task, future, function  # nothing is kept until the next one comes

    def end(self) -> None:
        """Forget the tasks that have not begun, and end the threads when they are done."""
        with contextlib.suppress(Empty):
            while True:
                self._tasks.get_nowait()
        for _ in range(self._count):
            self._tasks.put(None)


class Backend(ThreadingBackend):  # type: ignore[misc]
    """joblib's threads, which count as those that pyframe may use.

    An estimator that is fitted in one of them shares its kernels out to threads that are left over,
    and nobody oversubscribes the processors. As many tasks as `pyframe.get_num_threads` says run at
    a time, unless `n_jobs` says otherwise; within a task at most as many as are left over, whatever
    `n_jobs` says there.
    """

    default_n_jobs = -1

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._company, self._context = Company(), copy_context()
        self._threads: _Threads | None = None
        self._filters: warnings.catch_warnings[Any] | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks may run at a time."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")  # joblib's own words
        here = threads_left()
        if n_jobs is None or n_jobs < 0:
            return max(here + 1 + (-1 if n_jobs is None else n_jobs), 1)
        return min(n_jobs, here) if self.nesting_level else n_jobs

    def configure(self, *arguments: Any, **options: Any) -> int:
        """Prepare for the tasks of this thread, and return how many may run at a time."""
        self._company, self._context = Company(), copy_context()
        count: int = super().configure(*arguments, **options)
        return count

    def submit(self, func: Callable[[], Any], callback: Any = None) -> Future[Any]:
        """Have a task run in one of the threads, and then a callback there."""
        if self._threads is None:
            self._threads = _Threads(self._n_jobs)
        future = self._threads.submit(self._task(func))
        future.get = future.result  # type: ignore[attr-defined]  # what joblib before 1.3 asks
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # what joblib before 1.5 calls it

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the result of a task, or raise its error."""
        return out.result()

    def terminate(self) -> None:
        """End the threads."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.end()

    def _task(self, func: Callable[[], Any]) -> Callable[[], Any]:
        company, context = self._company, self._context.copy()

        def run() -> Any:
            company.enter()
            with beside():
                return func()

        return lambda: context.run(run)

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Leave the place of this thread to its tasks while it waits for them."""
        with beside(False):
            yield

    def get_nested_backend(self) -> tuple[Any, None]:
        """Return what runs the tasks within a task."""
        return Backend(nesting_level=(self.nesting_level or 0) + 1), None

    def start_call(self) -> None:
        """Note the filters of warnings: scikit-learn sets them in several threads at a time."""
        if not self.nesting_level:
            self._filters = warnings.catch_warnings()
            self._filters.__enter__()

    def stop_call(self) -> None:
        """Have the filters as they were."""
        if self._filters is not None:
            self._filters.__exit__(None, None, None)
            self._filters = None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop the fits under way, as Ctrl-C stops one, and begin no others."""
        self._company.stopped = True
        super().abort_everything(ensure_ready)


register_parallel_backend(NAME, Backend)
