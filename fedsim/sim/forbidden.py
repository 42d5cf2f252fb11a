"""What the virtual-time loop forbids: whatever happens in real time, or in an order nobody can repeat."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

L = TypeVar("L", bound=type[Any])

_REAL_TIME_METHODS = """
    run_in_executor set_default_executor getaddrinfo getnameinfo
    create_connection create_server create_unix_connection create_unix_server create_datagram_endpoint
    connect_accepted_socket start_tls sendfile sock_sendfile sock_recv sock_recv_into sock_recvfrom
    sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept connect_read_pipe connect_write_pipe
    subprocess_shell subprocess_exec add_reader remove_reader add_writer remove_writer
    add_signal_handler remove_signal_handler
"""
_ENSURE_FUTURE = ("ensure_future", "_ensure_future")
_AS_COMPLETED = ("as_completed", "as_completed.<locals>.<setcomp>", "_AsCompletedIterator.__init__")


def forbid(name: str) -> NoReturn:
    """Raise the error that says why ``name`` cannot be used in virtual time.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        f"{name} is refused on the virtual-time loop: threads, sockets, processes and signals happen in real "
        "time, which the virtual clock knows nothing of (real computation belongs into an event that blocks)"
    )


def forbid_real_time(loop_class: L) -> L:
    """Class decorator: replace the methods of a loop that use threads, sockets, processes or signals."""
    for name in _REAL_TIME_METHODS.split():
        setattr(loop_class, name, _forbidden(name))
    return loop_class


def _forbidden(name: str) -> Callable[..., NoReturn]:
    def method(self: object, *args: object, **kwargs: object) -> NoReturn:
        forbid(f"loop.{name}")

    method.__name__ = name
    method.__doc__ = "Forbidden: it happens in real time."
    return method


def forbid_as_completed(caller: FrameType | None) -> None:
    """Forbid a task that ``asyncio.as_completed`` makes of a bare coroutine; ``caller`` creates the task.

    Raises:
        RuntimeError: the coroutines are iterated as a set, hence in the order of their memory addresses.
    """
    if caller is None or caller.f_code.co_name not in _ENSURE_FUTURE:
        return
    while caller is not None and caller.f_code.co_name in _ENSURE_FUTURE:
        caller = caller.f_back
    if caller is not None and caller.f_code.co_qualname in _AS_COMPLETED:
        raise RuntimeError(
            "asyncio.as_completed starts bare coroutines in the order of their memory addresses, which "
            "differs from process to process; start them first: "
            "as_completed([asyncio.create_task(c) for c in ...])"
        )
