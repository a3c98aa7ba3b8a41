"""What a sanitizer has to say is heard, in whichever process it says it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import toolchain
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import sanitize

# It runs programs of its own, which have no kernels.
pytestmark = pytest.mark.once

# One thing that is right and one that is not; what another thread writes to is not locked.
SOURCE = """
#include <pthread.h>
#include <stdlib.h>
static int shared;
static void *count(void *unused) {
    for (int i = 0; i < 100000; i++) shared++;
    return unused;
}
int read_at(int i);
int read_at(int i) {
    int *volatile numbers = calloc(4, sizeof *numbers);
    const int found = numbers[i];
    free(numbers);
    return found;
}
int add(int a, int b);
int add(int a, int b) { return a + b; }
int in_threads(int threads);
int in_threads(int threads) {
    pthread_t started[8];
    for (int i = 0; i < threads; i++) pthread_create(&started[i], NULL, count, NULL);
    for (int i = 0; i < threads; i++) pthread_join(started[i], NULL);
    return 0;
}
"""
CALL = "import ctypes; ctypes.CDLL({library!r}).{call}"
CASES = [
    ("address", "read_at(3)", ""),
    ("address", "read_at(4)", "heap-buffer-overflow"),
    ("address", "add(2**31 - 1, 1)", "AddressSanitizer: ILL"),
    ("thread", "in_threads(1)", ""),
    ("thread", "in_threads(2)", "data race"),
]


def needs(sanitizer: str) -> None:
    if sanitize.find_library(sanitize.RUNTIMES[sanitizer]) is None:
        pytest.skip(f"no {sanitizer} sanitizer lies beside cc")


@pytest.mark.compiler
@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize(("sanitizer", "call", "report"), CASES)
def test_a_report_fails_the_run(
    sanitizer: str,
    call: str,
    report: str,
    watched: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    needs(sanitizer)
    flags = sanitize.FLAGS[sanitizer].split()
    built = toolchain.library(tmp_path, SOURCE, *flags, "-pthread", compiler="cc")
    program = CALL.format(library=str(built), call=call)
    command = [sys.executable, "-c", program]
    if not watched:  # a process whose parent does not ask how it ended
        started = f"import subprocess; subprocess.run({command!r})"
        command = [sys.executable, "-c", started]
    status = sanitize.main(["--no-build", sanitizer, *command])
    assert (status == 1) == bool(report)
    assert report in capfd.readouterr().out


def test_the_status_of_the_command_is_passed_on() -> None:
    needs("address")
    for status in (0, 3):
        command = [sys.executable, "-c", f"raise SystemExit({status})"]
        assert sanitize.main(["--no-build", "address", *command]) == status


def test_without_a_sanitizer_it_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanitize, "RUNTIMES", {"address": "libnosuch.so"})
    assert sanitize.main(["address", "false"]) == sanitize.LEFT_OUT
    assert "left out" in capsys.readouterr().out
    monkeypatch.setenv("PATH", "")  # no cc at all
    assert sanitize.main(["address", "false"]) == sanitize.LEFT_OUT


@pytest.mark.parametrize(
    ("given", "built"),
    [
        ([], set()),
        (["--sets", "baseline,avx2"], {"baseline", "avx2"}),
        (["--sets", "baseline,avx512"], {"baseline", "avx2", "avx512"}),
    ],
)
def test_sets_are_built_with_those_that_they_need(
    given: list[str], built: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("address")
    asked: list[set[str]] = []
    monkeypatch.setattr(sanitize, "build", lambda sanitizer, sets: asked.append(set(sets)))
    assert sanitize.main([*given, "address", "true"]) == 0
    assert asked == [built]


def test_a_set_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    needs("address")
    with pytest.raises(SystemExit):
        sanitize.main(["--sets", "avx3", "address", "true"])
    assert "--sets avx3: they are baseline, neon, avx2, avx512" in capsys.readouterr().err
