"""The Hypothesis profiles of all test folders: `ci` is loaded by itself, `--hypothesis-profile=long` looks further."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_EXAMPLES = 100
_LONG_FACTOR = 20


def register() -> None:
    """Register both profiles and load `ci`, whose examples are the same in every run."""
    settings.register_profile(
        "ci",
        max_examples=_EXAMPLES,
        stateful_step_count=30,
        derandomize=True,
        # What an example costs is the machine's affair: no verdict may depend on it.
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
        print_blob=True,
    )
    settings.register_profile(
        "long", settings.get_profile("ci"), max_examples=_EXAMPLES * _LONG_FACTOR, derandomize=False
    )
    settings.load_profile("ci")


def examples(count: int) -> int:
    """Turn the examples of a test that has another number than the profile's 100 into those of the loaded profile."""
    return count * settings().max_examples // _EXAMPLES
