"""Calls the Service orders, and prints who answered: of 200 requests of anybody, and of 20 of a tester."""

import collections
import os
import time
import urllib.error
import urllib.request

URL = f"http://{os.environ['MESH_UPSTREAM_ORDERS']}/orders"


def ask(headers):
    try:
        request = urllib.request.Request(URL, headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except OSError as error:
        return type(error).__name__


def tally(count, headers):
    answers = collections.Counter(ask(headers) for _ in range(count))
    return ", ".join(f"{who} {times}" for who, times in sorted(answers.items()))


while True:
    print(f"anybody: {tally(200, {})}; testers: {tally(20, {'x-tester': 'yes'})}", flush=True)
    time.sleep(2)
