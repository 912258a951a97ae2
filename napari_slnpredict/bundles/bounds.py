"""What a child process may take that reads a stranger's file."""

from __future__ import annotations


def bound_process(memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Bound this process for the rest of its life; where the system knows no limits, it has none.

    Parameters
    ----------
    memory_bytes, cpu_seconds : int
    file_bytes : int
        Of any file it writes; 0: none.
    """
    try:
        import resource
    except ImportError:
        return
    wanted = (
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_CPU", cpu_seconds),
        ("RLIMIT_FSIZE", file_bytes),
        ("RLIMIT_CORE", 0),
    )
    for name, most in wanted:
        kind = getattr(resource, name, None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, hard))
