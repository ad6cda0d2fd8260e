"""Which services a host runs besides identify and ping."""

from collections.abc import Iterable

from anyp2p_core.echo import Echo
from anyp2p_core.perf import Perf
from anyp2p_core.service import Service


def default_services(own: Iterable[Service], echo: bool, perf: bool) -> list[Service]:
    """The application's services, and the two test protocols where asked for."""
    services = list(own)
    if echo:
        services.append(Echo())
    services.append(Perf(serve=perf))
    return services
