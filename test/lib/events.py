"""Waiting for what the kernel announces, instead of looking again and again: the end of a process (pidfd_open(2)) and changes in a folder
(inotify(7))."""

import contextlib
import ctypes
import os
import select
import time

IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100  # inotify.h: written, renamed into, made
LONGEST_MS = 1 << 30  # poll(2) takes an int of milliseconds; callers have their own limits, far below


class FolderChanges:
    """Readable when a file of `folder` (not deeper) was made, written or renamed into since the last forget()."""

    def __init__(self, folder):
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_MODIFY | IN_MOVED_TO | IN_CREATE) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), folder)

    def fileno(self):
        return self._fd

    def forget(self):
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                pass

    def close(self):
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class ProcessEnd:
    """Readable when the process has ended. `pid` must be a child that has not been waited for, so that it cannot be somebody else's."""

    def __init__(self, pid):
        self._fd = os.pidfd_open(pid)

    def fileno(self):
        return self._fd

    def close(self):
        os.close(self._fd)


def wait_readable(sources, timeout):
    """True as soon as one of `sources` is readable, False after `timeout` seconds."""
    poll = select.poll()
    for source in sources:
        poll.register(source, select.POLLIN)
    return bool(poll.poll(min(max(timeout, 0) * 1000, LONGEST_MS)))


class Deadline:
    def __init__(self, seconds):
        self._at = time.monotonic() + seconds

    def left(self):
        """Seconds, 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())
