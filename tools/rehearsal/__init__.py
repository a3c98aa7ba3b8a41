"""The parts of the release rehearsal, tools/rehearse.py."""
