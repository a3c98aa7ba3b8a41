"""The backend "pyframe" of joblib: what it runs in parallel, it runs in threads of this process."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import ThreadingBackend

from pyframe.native.threads import beside, threads_left
from pyframe.training.company import Company

NAME = "pyframe"


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

    def submit(self, func: Callable[[], Any], callback: Any = None) -> Any:
        """Have a task run in one of the threads."""
        return super().submit(self._task(func), callback)

    def apply_async(self, func: Callable[[], Any], callback: Any = None) -> Any:
        """Have a task run in one of the threads: what joblib before 1.5 calls."""
        return super().apply_async(self._task(func), callback)

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
