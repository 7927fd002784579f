"""The QEMU Machine Protocol, as much of it as faults need."""

import json
import socket

from procs import Failure


class Qmp:
    """Thread safety: none."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(path)
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._stream.readline()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        for line in self._stream:
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failure(f"qemu: {command}: {answer['error'].get('desc')}")
            # anything else is an event
        raise Failure(f"qemu ended at {command}")

    def close(self):
        self._stream.close()
        self._socket.close()
