"""What ``tools/wheels.py`` is made of: wheels for several platforms, built and proved on one."""
