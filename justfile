# Tasks for those who work on pyframe; `pip install rust-just` brings `just`.

# List the tasks.
default:
    @just --list

# Install pyframe to be edited, the plugins that live here, and the tools; again after a change of C.
setup:
    pip install -e ".[dev]"
    pip install --no-build-isolation --no-deps ./plugins/pyframe-cnn ./plugins/pyframe-lion ./plugins/pyframe-mpi ./plugins/pyframe-seq
    pip install mpi4py mpich

# Run the tests of less than a minute: what needs no compiler, no package and no long search.
quick:
    pytest -n auto -m "not (slow or package or compiler or sklearn or docs or once or sweep)"

# Run the whole suite, but for what takes minutes by itself, and the suites of the plugins.
test:
    pytest -n auto
    cd plugins/pyframe-cnn && pytest -n auto tests
    cd plugins/pyframe-lion && pytest -n auto tests
    cd plugins/pyframe-mpi && pytest -n auto tests
    cd plugins/pyframe-seq && pytest -n auto tests

# Compile the C that has changed, and run the tests of kernels, ops and planted faults.
c:
    pip install -q --no-build-isolation --no-deps -e .
    pytest -n auto -m "compiler and not (slow or package)"
    pytest -n auto -m compiler tests/test_planted_faults.py
    pytest -n auto tests/test_ops.py tests/test_gemm.py

# Run the linters and the type checker.
lint:
    ruff check .
    ruff format --check .
    mypy
    clang-format --dry-run --Werror core_c/*.[ch] core_c/python/*.c core_c/include/pyframe/*.h plugins/*/kernels/*.[ch] pyframe/testing/*.c

# Follow the pages of the documentation, and build its site without a warning.
docs:
    pytest -n auto -m "docs and not slow"
    python tools/build_site.py

# Check random graphs for so many seconds, under every instruction set of this machine.
fuzz seconds="3600" seed=`date +%s`:
    python tests/fuzz.py --seconds {{seconds}} --seed {{seed}}
