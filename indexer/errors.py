"""What can go wrong with input: each message says what to do next."""


class VitrineError(Exception):
    """A condition the person at the keyboard can mend. The command prints the message and exits with `exit_code`."""

    exit_code = 1


class ConfigError(VitrineError):
    """A configuration that cannot be used."""

    exit_code = 2


class InputError(VitrineError):
    """Input files that cannot be used."""

    exit_code = 3


class SnapshotError(VitrineError):
    """A stored snapshot that is missing, damaged, of another format, or that does not fit its partner."""

    exit_code = 4


class LockedError(VitrineError):
    """Another run holds the lock."""

    exit_code = 5
