"""One test after another on the same node: each says how it went, and a failed one leaves nothing running for the next."""

from procs import Failure


def run_cases(node, cases):
    """`cases` are pairs of a name and what to call; a Failure is what it says. The exit status."""
    failed = 0
    for name, case in cases:
        try:
            case()
            print(f"ok   {name}", flush=True)
        except Failure as failure:
            failed += 1
            print(f"FAIL {name}: {failure}", flush=True)
            for process in node.processes:
                process.kill()
    print("PASS" if not failed else f"{failed} failed")
    return 1 if failed else 0
