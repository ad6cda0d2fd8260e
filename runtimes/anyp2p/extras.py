"""One clear sentence for an optional dependency that is not installed."""

from importlib.util import find_spec


class MissingExtra(ImportError):
    """Says what to install."""


def require(package: str, extra: str) -> None:
    """Raise ``MissingExtra`` unless ``package`` can be imported."""
    if find_spec(package) is None:
        raise MissingExtra(
            f"this needs the package {package!r}: pip install 'anyp2p[{extra}]'", name=package
        )
