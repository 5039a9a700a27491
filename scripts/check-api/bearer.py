"""Prints a token for alice, signed with HS256 by the key in the file, good for an hour.

    python bearer.py KEY_FILE
"""

import base64
import hashlib
import hmac
import json
import sys
import time


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


claims = {"sub": "alice", "exp": int(time.time()) + 3600}
signed = b".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
key = open(sys.argv[1], "rb").read()
print((signed + b"." + encoded(hmac.new(key, signed, hashlib.sha256).digest())).decode())
