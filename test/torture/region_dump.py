#!/usr/bin/env python3
"""Shows the words of every slot in use in the regions that a process maps (channel/layout.h): for looking at a held failure.

    region_dump.py PID
"""

import struct
import sys

SLOTS_OFFSET, SLOT_BYTES, SLOTS = 4096, 1024, 64
SIDE_OFFSET, SIDE_BYTES = 128, 384


def side_words(slot, side):
    at = SIDE_OFFSET + side * SIDE_BYTES
    tail, capacity = struct.unpack_from("<QI", slot, at)
    (head,) = struct.unpack_from("<Q", slot, at + 128)
    names = ("data_waiter", "space_waiter", "attached", "gate", "bells", "proposal_generation", "proposal_marker", "finished_generation")
    words = dict(zip(names, struct.unpack_from("<8I", slot, at + 256)))
    (words["proposal_start"],) = struct.unpack_from("<Q", slot, at + 288)
    return {"tail": tail, "capacity_log2": capacity, "head": head, **words}


def main(pid):
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        bases = [int(line.split("-")[0], 16) for line in maps if "/memfd:" in line and line.split()[2] == "00000000"]
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for base in bases:
            memory.seek(base)
            header = memory.read(SLOTS_OFFSET + SLOTS * SLOT_BYTES)
            print(f"region {struct.unpack_from('<Q', header, 8)[0]:#x} at {base:#x}")
            for index in range(SLOTS):
                slot = header[SLOTS_OFFSET + index * SLOT_BYTES :][:SLOT_BYTES]
                epoch, revoked = struct.unpack_from("<II", slot, 0)
                if epoch == 0:
                    continue
                print(f"  slot {index} epoch {epoch} revoked {revoked}")
                for side in range(2):
                    print(f"    side {side}", " ".join(f"{name}={value}" for name, value in side_words(slot, side).items()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(int(sys.argv[1]))
