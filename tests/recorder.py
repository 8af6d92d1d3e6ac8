"""Runs a command in a network namespace where every address is this process, and prints which names and
addresses it asked for.

    unshare --map-root-user --net python -m tests.recorder SECONDS command...

The kernel delivers every IPv4 packet to the loopback device, so nothing that a library does in C, or past the
proxy's variables, is missed. Names are answered with an address that is nobody's (TEST-NET-3); connections to
ports 80 and 443 are taken and closed.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time

NOBODY = bytes((203, 0, 113, 7))


def question(packet: bytes) -> str:
    """The name that a DNS query asks for."""
    labels, at = [], 12
    while length := packet[at]:
        labels.append(packet[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels)


def answer(packet: bytes) -> bytes:
    """NOBODY for an A query, nothing for others."""
    at = 12 + len(question(packet)) + 2
    kind = packet[at : at + 2]
    head = (
        packet[:2]
        + b"\x81\x80\x00\x01"
        + (b"\x00\x01" if kind == b"\x00\x01" else b"\x00\x00")
        + b"\x00\x00\x00\x00"
    )
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + NOBODY if kind == b"\x00\x01" else b""
    return head + packet[12 : at + 4] + record


def main(seconds: float, command: list[str]) -> None:
    """Prints `{"names": [...], "addresses": [...], "code": ...}`."""
    for words in (["link", "set", "lo", "up"], ["route", "add", "local", "0.0.0.0/0", "dev", "lo"]):
        subprocess.run(["ip", *words], check=True)
    names: set[str] = set()
    addresses: set[str] = set()

    def names_server() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            # The answer has to come from the address that was asked: IP_PKTINFO would do; one socket a
            # nameserver is less.
            server.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
            server.bind(("0.0.0.0", 53))
            ready.release()
            while True:
                packet, ancillary, _, client = server.recvmsg(2048, 256)
                names.add(question(packet))
                server.sendmsg([answer(packet)], [(socket.IPPROTO_IP, 8, _from(ancillary[0][2]))], 0, client)

    def listener(port: int) -> None:
        with socket.create_server(("0.0.0.0", port)) as server:
            ready.release()
            while True:
                connection, _ = server.accept()
                if not (address := connection.getsockname()[0]).startswith("127."):
                    addresses.add(f"{address}:{port}")
                connection.close()

    ready = threading.Semaphore(0)
    for target, args in ((names_server, ()), (listener, (80,)), (listener, (443,))):
        threading.Thread(target=target, args=args, daemon=True).start()
    for _ in range(3):
        ready.acquire()
    done = subprocess.run(command, timeout=seconds, check=False, stdout=sys.stderr)
    time.sleep(0.2)
    print(json.dumps({"names": sorted(names), "addresses": sorted(addresses), "code": done.returncode}))


def _from(information: bytes) -> bytes:
    """in_pktinfo of the answer: from the address that the query was sent to."""
    return bytes(4) + information[8:12] + bytes(4)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
