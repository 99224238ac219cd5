"""Refuse the network to every Python process that has this folder on PYTHONPATH; loopback stays open.

`make test` runs the notebooks and tests under it, so that a cell that needs the web fails here and not in class.
It sees what goes through Python's own `socket` module; `BEARCLASS_OFFLINE=1` closes bearclass' other doors."""
import ipaddress, os, sys


def _is_loopback(host):
    if host in (None, '', 'localhost', b'localhost'): return True
    host = host.decode() if isinstance(host, bytes) else str(host)
    try: return ipaddress.ip_address(host.split('%')[0]).is_loopback or host == '0.0.0.0'
    except ValueError: return False   # a name: looking it up would ask the network


def _guard(event, args):
    if event in ('socket.connect', 'socket.sendto'):
        address = args[1]
        if isinstance(address, tuple) and not _is_loopback(address[0]):
            raise OSError(f'network refused by tools/offline: {event} to {address[0]}')
    elif event in ('socket.getaddrinfo', 'socket.gethostbyname'):
        import socket
        if not _is_loopback(args[0]) and args[0] != socket.gethostname():
            raise OSError(f'network refused by tools/offline: look-up of {args[0]}')


sys.addaudithook(_guard)
os.environ['BEARCLASS_OFFLINE'] = '1'
