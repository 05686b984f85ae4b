"""The OpenAPI document against the real broker, by `schemathesis`: whatever is asked, no answer is a server error, and none is
other than documented.

TIDINGS_BIN names the broker. `tests/run` installs the package and runs this with the seed below, for a bounded time; a longer
search is `documents.py --seed N --seconds N`. This file is its hooks too.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

SEED = 5
SECONDS = 60
# What lasts: sockets, and streams that only the reader ends.
ENDLESS = r"^/v1/ws|^/v1/subscriptions/\{name\}/events$"
# An open broker asks for no token, so none can be missed; and a document cannot say all that a request must not: options that
# exclude each other, moments that have passed, offsets of another log.
# And a topic whose events are erased is no resource that is gone: it reads as one that has none. What is refused is for our
# own tests: to the tool a header that nobody knows is wrong data, and what it finds hangs on how far it gets.
UNCHECKED = (
    "ignored_auth,missing_required_header,positive_data_acceptance,negative_data_rejection,use_after_free"
)


def main():
    from sockets import Broker

    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    asked = parser.parse_args()
    here = pathlib.Path(__file__).resolve()
    tool = pathlib.Path(sys.executable).with_name("schemathesis")
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "documents", "PYTHONPATH": str(here.parent)}
    with Broker("--demo") as broker:
        url = f"http://{broker.address}"
        command = [tool, "run", f"{url}/v1/openapi.json", "--url", url]
        command += ["--checks", "all", "--exclude-checks", UNCHECKED]
        command += ["--exclude-path-regex", ENDLESS, "--seed", str(asked.seed)]
        command += ["--max-time", str(asked.seconds), "--request-timeout", "20"]
        command += ["--generation-database", "none", "--suppress-health-check", "all", "--no-color"]
        status = subprocess.run(command, env=env, check=False).returncode
        stopped = broker.stop()
        if stopped != 0:
            print(f"the broker ended with {stopped}", file=sys.stderr)
        sys.exit(status or stopped)


if __name__ == "__main__":
    main()
else:
    import schemathesis

    def brief(wait):
        """The same wait, but no longer than it takes; what is wrong stays so."""
        if re.fullmatch(r"(30|[12]?[0-9])s?|(30000|[12]?[0-9]{1,4})ms", str(wait), re.ASCII):
            return "5ms"
        return wait

    @schemathesis.hook
    def before_call(context, case, kwargs):
        if isinstance(case.query, dict) and "wait" in case.query:
            case.query["wait"] = brief(case.query["wait"])
        if isinstance(case.body, dict) and isinstance(case.body.get("wait"), (str, int)):
            case.body["wait"] = brief(case.body["wait"])
        for name, value in dict(case.headers or {}).items():
            if name.lower() == "prefer":
                case.headers[name] = "respond-async" if "wait" in str(value) else value
