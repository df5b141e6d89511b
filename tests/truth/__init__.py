"""Every figure that a run shows, compared with a provider on 127.0.0.1 that wrote down what it did and when."""

import pytest

pytest.register_assert_rewrite("tests.truth.bounds", "tests.truth.figures", "tests.truth.times")
