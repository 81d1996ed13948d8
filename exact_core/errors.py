"""Every error this package raises on purpose.

    ExactError
    ├── ConfigError      a recipe, key or value of a configuration is wrong
    ├── DataError        an input file or array is not what it should be
    │   └── CorruptError   a file of ours does not match its recorded checksum
    ├── TrainingError    training cannot start or has diverged
    └── ServiceError     a tracking server, runner or store failed or is missing

A message says what is wrong, names the file and the value, and ends with the way out.
"""

__all__ = [
    "ConfigError",
    "CorruptError",
    "DataError",
    "ExactError",
    "ServiceError",
    "TrainingError",
    "in_a_line",
]


class ExactError(Exception):
    """Base class: catch this to catch everything that the package reports to a user."""


def in_a_line(error: BaseException) -> str:
    """What an error says: ours as they are, others with their kind."""
    return str(error) if isinstance(error, ExactError) else f"{type(error).__name__}: {error}"


class ConfigError(ExactError):
    """A recipe, a configuration key or a configuration value is wrong."""


class DataError(ExactError):
    """An input file or array is not what it should be."""


class CorruptError(DataError):
    """A file written by this package does not match the checksum recorded for it."""


class TrainingError(ExactError):
    """Training cannot start or has diverged."""


class ServiceError(ExactError):
    """A tracking server, a pipeline runner or a store failed or is not installed."""
