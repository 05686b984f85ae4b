"""The OpenAPI document against the real broker, by `schemathesis`: whatever is asked, no answer is a server error, and none is
other than documented. First of a broker that is open to all, then of one that wants a token, which nothing answers without it
but what the document says.

TIDINGS_BIN names the broker. `tests/run` installs the package and runs this with the seed below, for a bounded time; a longer
search is `documents.py --seed N --seconds N`. This file is its hooks too.
"""

import argparse
import os
import pathlib
import re
import secrets
import subprocess
import sys
import tempfile

SEED = 5
SECONDS = 60
# Set in the run against a broker that wants a token.
GUARDED = "DOCUMENTS_GUARDED"
# What lasts: sockets, and streams that only the reader ends.
ENDLESS = r"^/v1/ws|^/v1/subscriptions/\{name\}/events$"
# A document cannot say all that a request must not: options that exclude each other, moments that have passed, offsets of
# another log.
# And a topic whose events are erased is no resource that is gone: it reads as one that has none. What is refused is for our
# own tests: to the tool a header that nobody knows is wrong data, and what it finds hangs on how far it gets.
UNCHECKED = "missing_required_header,positive_data_acceptance,negative_data_rejection,use_after_free"


def search(settings, seed, seconds, *more, guarded=False):
    """One search through the document. Its exit code, or that of the broker."""
    from sockets import Broker

    here = pathlib.Path(__file__).resolve()
    tool = pathlib.Path(sys.executable).with_name("schemathesis")
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "documents", "PYTHONPATH": str(here.parent)}
    # An open broker asks for no token, so none can be missed.
    env, unchecked = ({**env, GUARDED: "1"}, UNCHECKED) if guarded else (env, f"ignored_auth,{UNCHECKED}")
    with Broker("--demo", *settings) as broker:
        url = f"http://{broker.address}"
        command = [tool, "run", f"{url}/v1/openapi.json", "--url", url, *more]
        command += ["--checks", "all", "--exclude-checks", unchecked]
        command += ["--exclude-path-regex", ENDLESS, "--seed", str(seed)]
        command += ["--max-time", str(seconds), "--request-timeout", "20"]
        command += ["--generation-database", "none", "--suppress-health-check", "all", "--no-color"]
        status = subprocess.run(command, env=env, check=False).returncode
        stopped = broker.stop()
    if stopped != 0:
        print(f"the broker ended with {stopped}", file=sys.stderr)
    return status or stopped


def token(secret):
    """A token that may do everything."""
    grants = ["--publish", ">", "--subscribe", ">", "--durable", "*", "--admin"]
    command = [os.environ["TIDINGS_BIN"], "token", "create", "root", "--secret-file", secret, *grants]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    asked = parser.parse_args()
    status = search([], asked.seed, asked.seconds // 2)
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(secrets.token_hex(32))
        secret.flush()
        settings = ["--set", f"auth.hs256_secret_file={secret.name}"]
        bearer = ["--header", f"Authorization: Bearer {token(secret.name)}"]
        status = search(settings, asked.seed, asked.seconds // 2, *bearer, guarded=True) or status
    sys.exit(status)


if __name__ == "__main__":
    main()
else:
    import schemathesis

    @schemathesis.hook
    def before_load_schema(context, raw_schema):
        # The document is that of every broker, of open ones too.
        if GUARDED in os.environ:
            raw_schema["security"] = [{"bearer": []}]

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
