"""What host and guest say to each other over a virtio-serial port: frames that carry the streams of many commands at once.

A frame is its payload's length (4 bytes, big-endian), a kind (1 byte), the command's number (4 bytes, chosen by the host), the payload.
"""

import json
import os
import struct

HEADER = struct.Struct(">IBI")
LONGEST = 1 << 20  # of a payload; longer is an error in the program that says so

# From the host.
RUN = 1  # JSON: argv, env (changes to the guest's own; null removes), cwd
STDIN = 2  # bytes for the command; empty: there are no more
SIGNAL = 3  # JSON: a number, for the command's process group
# From the guest.
READY = 16  # JSON: how long the boot took; command number 0
STDOUT = 17
STDERR = 18
EXIT = 19  # JSON: status as subprocess gives it (negative: the signal), error: why it could not be started
STARTED = 20  # JSON: pid in the guest


class Garbled(Exception):
    """The other side does not speak this protocol."""


def frame(kind, number, payload=b""):
    if not isinstance(payload, (bytes, bytearray)):
        payload = json.dumps(payload).encode()
    if len(payload) > LONGEST:
        raise Garbled(f"a payload of {len(payload)} bytes")
    return HEADER.pack(len(payload), kind, number) + payload


class Reader:
    """Frames from a stream that arrives in pieces."""

    def __init__(self):
        self._buffer = bytearray()

    def feed(self, data):
        """Yields (kind, number, payload) of each frame that is complete now."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            length, kind, number = HEADER.unpack_from(self._buffer)
            if length > LONGEST:
                raise Garbled(f"a frame of {length} bytes")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield kind, number, payload


def write_all(fd, data):
    """To a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
