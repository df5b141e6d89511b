"""The benchmarks: `make bench`, or `python -m bench` in the root of the repository.

Figures of one run can be compared with each other; those of different machines or moments cannot, since browser, server
and other programs share the processors.
"""
